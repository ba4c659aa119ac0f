"""Evidence as a value: what it keeps, how it travels, and what it refuses."""

import json
import pickle

import pytest

from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.incidents import (
    Evidence,
    Incident,
    evidence_from_dict,
    evidence_of,
    incident_from,
    parse_marker,
)
from pytest_mltd.core.trials import Condition, Outcome

FACTS = {
    "commit": "a" * 40,
    "committed": "2026-01-01T00:00:00+00:00",
    "branch": "main",
    "dirty": True,
    "tree": "12ab",
    "environment": {"torch": "2.13.0", "cpus": 2},
    "time": "2026-01-01T00:00:01+00:00",
}
FINDING = Finding(
    ok=False,
    id="metrics.regression",
    headline="'val/auc' is NaN",
    culprit="val/auc",
    amount=float("nan"),
    table=Table(("metric", "now"), (("val/auc", float("nan")),), 0),
    details={"current": {"val/auc": [0.9, float("inf")], "val/loss": 0.3}},
)


def made(**more):
    outcome = Outcome(kind="failed", fingerprint="ff", findings=(FINDING,), text="CheckFailed: …")
    return evidence_of(outcome, Condition(seed=0, slice=64), FACTS, **{"id": "leak/H1", "nodeid": "t.py::test", **more})


class TestMaking:
    def test_it_keeps_outcome_condition_and_provenance(self):
        """Everything that the fold and the report need is in the record."""
        e = made(claim="  x tells\n the label ", family="label leakage", runs=2)
        assert (e.incident, e.hypothesis, e.kind, e.fingerprint) == ("leak", "H1", "failed", "ff")
        assert (e.seed, e.slice, e.steps, e.runs) == (0, 64, None, 2)
        assert (e.commit, e.dirty, e.branch, e.environment["torch"]) == ("a" * 40, True, "main", "2.13.0")
        assert e.claim == "x tells the label"
        assert e.state == f"{'a' * 40}+12ab"

    def test_metrics_come_from_the_findings_that_were_asked_about_them(self):
        """What `check_regression` compared is kept, and so is what the caller adds."""
        assert made(metrics={"train/loss": 0.1}).metrics.keys() == {"val/auc", "val/loss", "train/loss"}

    def test_the_text_of_a_failure_is_bounded(self):
        """A log of a megabyte does not become a record of a megabyte."""
        e = Evidence(incident="a", hypothesis="H", nodeid="n", kind="failed", text="x" * 10**6)
        assert len(e.text) == 4_000

    @pytest.mark.parametrize(
        "id", ["", "leak", "leak/", "/H1", "a/b/c", "../x/H1", "leak/H 1", None, 3, "a\n/H1", ".x/H"]
    )
    def test_an_id_that_is_no_incident_and_hypothesis_is_refused(self, id):
        """The text begins with the argument's name and shows the form."""
        with pytest.raises(ValueError, match=r'^id: "incident/hypothesis" is needed, as in mltd\("loan-leak/H1"\)'):
            parse_marker(id)

    @pytest.mark.parametrize("name", ["..", "a/b", "a\\b", "", "x" * 81, "con.", "ä"])
    def test_a_name_that_cannot_be_a_file_is_refused(self, name):
        """An incident's name is a file's name on every system."""
        with pytest.raises(ValueError, match="^incident: "):
            incident_from(name, ())

    def test_evidence_of_other_incidents_is_left_out(self):
        """A ledger that holds two incidents, after a rename say, does not mix them."""
        other = made(id="other/H1")
        assert incident_from("leak", [made(), other]).evidence == (made(),)

    def test_an_unknown_hypothesis_is_refused_with_those_that_are_known(self):
        """A misspelt id gets the list."""
        with pytest.raises(ValueError, match="id: leak has no evidence for 'H2'; it has H1"):
            Incident(name="leak", evidence=(made(),)).hypothesis("H2")


class TestTravelling:
    def test_it_survives_json_with_numbers_that_are_not_finite(self):
        """JSON knows no NaN; the record is the same after the way there and back."""
        data = json.loads(json.dumps(made().as_dict(), allow_nan=False))
        again = evidence_from_dict(data)
        assert again.as_dict() == made().as_dict()
        assert str(again.findings[0]) == str(FINDING)

    def test_it_survives_pickling(self):
        """Workers and children hand it over."""
        e = made()
        assert pickle.loads(pickle.dumps(e)).as_dict() == e.as_dict()

    def test_keys_of_a_newer_version_are_left_out(self):
        """What an older reader does not know does not stop it."""
        assert evidence_from_dict({**made().as_dict(), "mood": "good"}).as_dict() == made().as_dict()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"kind": "great"}, "kind: 'great' is none of"),
            ({"kind": ["passed"]}, "'kind' is text"),
            ({"incident": "../x"}, "incident: "),
            ({"seed": "0"}, "'seed' is a whole number or null"),
            ({"metrics": []}, "'metrics' is a mapping"),
            ({"findings": [1]}, "a finding is a mapping"),
            ({"findings": 3}, "not an evidence record"),
            ({"findings": [{"ok": True}]}, "not a finding"),
            ({"findings": [{"ok": True, "headline": ["x"]}]}, "a finding's 'headline' is text"),
            ({"findings": [{"ok": "no", "headline": "x"}]}, "a finding's 'ok' is 'no'"),
            ({"runs": "2"}, "'runs' is"),
            ({"text": None}, "'text' is text"),
        ],
    )
    def test_a_record_with_a_wrong_entry_is_refused_by_name(self, change, said):
        """A hostile or edited line cannot become evidence."""
        with pytest.raises(ValueError, match=said):
            evidence_from_dict({**made().as_dict(), **change})

    @pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"incident": "a"}])
    def test_what_is_no_record_is_refused(self, data):
        """Missing entries and other shapes."""
        with pytest.raises(ValueError, match="data: "):
            evidence_from_dict(data)
