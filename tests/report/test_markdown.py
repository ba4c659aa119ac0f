"""The report: five outputs, a checklist ticked from evidence, every gap in words, and no name that escapes its place."""

import html
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mltd.core.findings import Finding
from pytest_mltd.core.incidents import Evidence, Incident, Story, evidence_from_dict
from pytest_mltd.report.contents import checklist, gaps, owner_of
from pytest_mltd.report.json import incident_json
from pytest_mltd.report.markdown import block, code, escape, incident_markdown

BROKEN, FIXED = "a" * 40, "b" * 40
LEAK = Finding(
    ok=False,
    id="leakage.label_leak",
    headline="'days_to_default' alone predicts the label, AUC 0.998 (max_auc=0.95)",
    culprit="days_to_default",
    amount=0.998,
    limit=("max_auc", 0.95),
    evidence="inference",
)
NO_LEAK = Finding(ok=True, id="leakage.label_leak", headline="no column predicts the label alone", amount=0.61)
WORSE = Finding(
    ok=False,
    id="metrics.regression",
    headline="'val/auc' is 0.998 (maximum=0.95)",
    culprit="val/auc",
    amount=0.998,
    details={"current": {"val/auc": 0.998}},
)
FINE = Finding(ok=True, id="metrics.regression", headline="no metric is worse", details={"current": {"val/auc": 0.71}})


def seen(kind, commit, findings=(), hypothesis="H1", **more):
    values = {
        "incident": "loan-leak",
        "hypothesis": hypothesis,
        "nodeid": f"tests/test_loan.py::test_{hypothesis.lower()}",
        "kind": kind,
        "findings": findings,
        "metrics": {k: v for f in findings for k, v in f.details.get("current", {}).items()},
        "fingerprint": "f" if kind == "failed" else "",
        "claim": f"claim of {hypothesis}",
        "family": "label leakage",
        "seed": 0,
        "slice": 256,
        "runs": 2,
        "commit": commit,
        "committed": "2026-01-01T00:00:00+00:00" if commit == BROKEN else "2026-01-02T00:00:00+00:00",
        "time": "2026-01-03T10:00:00+00:00" if commit == BROKEN else "2026-01-03T11:00:00+00:00",
        "environment": {"python": "3.11.7", "torch": "2.13.0", "cpu": "X", "cpus": 2},
        **more,
    }
    return Evidence(**values)


INCIDENT = Incident(
    name="loan-leak",
    evidence=(
        seen("failed", BROKEN, (LEAK, WORSE)),
        seen("passed", BROKEN, hypothesis="H2"),
        seen("passed", FIXED, (NO_LEAK, FINE)),
        seen("passed", FIXED, hypothesis="H2"),
    ),
)
STORY = Story(
    summary="AUC jumped to 0.998.",
    impact="Two days of wrong rankings.",
    constraints={"budget": "two days", "metric_targets": "AUC 0.70"},
    baseline="AUC 0.70",
    expected="no jump without a new model",
    started="2026-01-01",
    root_cause="a column written after the outcome",
    trigger="a new export",
    contributing=("no review of new columns",),
    fix="the column is dropped",
    remaining_risks=("other exports",),
    rollback="deploy the model of December",
    rollback_tried="2026-01-02, in a work tree",
    prevention=("new columns are reviewed",),
    owners={"*": "data team"},
)


class TestWhole:
    def test_a_complete_incident_has_no_gap(self):
        """All five outputs, every box ticked, from evidence and story alone."""
        text = incident_markdown(INCIDENT, STORY)
        assert text == Path(__file__).with_name("complete.md").read_text(encoding="utf-8")
        assert gaps(INCIDENT, STORY) == ()

    def test_the_same_incident_gives_the_same_bytes(self):
        """No clock, no order of a set."""
        assert incident_markdown(INCIDENT, STORY) == incident_markdown(INCIDENT, STORY)

    def test_an_empty_incident_is_a_report_of_gaps(self):
        """Nothing recorded, nothing written: every section is there and says so."""
        text = incident_markdown(Incident(name="x"))
        for said in (
            "Hypotheses: no hypothesis has evidence.",
            "Nobody wrote anything down yet.",
            "Nothing was seen failing here, so there is nothing to reproduce yet.",
            "No metric was recorded.",
            "Nothing is claimed.",
            "- [ ] reproduced with fixed seeds and a minimal slice: gap: nothing was seen failing here",
            "- [ ] confidence ceiling stated: gap:",
            "- nobody wrote down, in `x.toml` beside the ledger: summary (`summary`); ",
            "; root cause (`root_cause`); ",
        ):
            assert said in text
        assert text.count("- [ ] ") == 5
        assert text.count("- [x] ") == 0

    def test_each_gap_is_said_once(self):
        """What a section, the checklist or the table of confidence says is not said again."""
        text = incident_markdown(Incident(name="loan-leak", evidence=(seen("failed", BROKEN, (LEAK,), seed=None),)))
        for once in (
            "`root_cause`",
            "`rollback`",
            "no seed was fixed: --mltd-seed",
            "nobody*",
        ):
            assert text.count(once) <= 1, once
        assert ":** *not recorded*" not in text
        assert text.endswith("- each box above that is not ticked\n- what lowers a confidence in section 5\n")
        assert len(text.partition("## Gaps")[2].splitlines()) <= 7

    def test_problems_of_the_ledger_are_shown(self):
        """Whoever reads the report sees that a line was edited."""
        text = incident_markdown(INCIDENT, STORY, problems=["leak.jsonl line 2: it was changed"])
        assert text.endswith("\n## Ledger\n\n- leak.jsonl line 2: it was changed\n")

    def test_a_long_history_is_cut_in_the_middle_and_says_so(self):
        """The ledger has the rest."""
        many = tuple(seen("failed", BROKEN, (LEAK,)) for _ in range(500))
        text = incident_markdown(Incident(name="loan-leak", evidence=many), STORY)
        assert "300 more in between; the ledger has them all." in text

    def test_json_has_the_same_contents(self):
        """For programs, without NaN."""
        odd = seen("passed", FIXED, metrics={"val/auc": float("nan")})
        data = json.loads(
            json.dumps(incident_json(Incident(name="loan-leak", evidence=(odd,)), STORY), allow_nan=False)
        )
        assert data["schema"] == 1
        data = incident_json(INCIDENT, STORY, problems=["p"])
        assert [(h["id"], h["status"]) for h in data["hypotheses"]] == [("H1", "fixed"), ("H2", "refuted")]
        assert data["hypotheses"][0]["confidence"]["ceiling"] == 0.95
        assert data["metrics"] == [
            {"hypothesis": "H1", "place": "val/auc", "limit": "", "before": 0.998, "after": 0.71}
        ]
        assert (data["gaps"], data["problems"]) == ([], ["p"])
        assert all(item["done"] for item in data["checklist"])


class TestGaps:
    @pytest.mark.parametrize(
        ("change", "item", "said"),
        [
            ({"seed": None}, 0, "no seed was fixed: --mltd-seed"),
            ({"slice": None}, 0, "neither slice nor steps were limited"),
            ({"runs": 1}, 0, "seen once: --mltd-repro runs it twice"),
            ({"claim": ""}, 1, "without a claim in words: H1"),
            ({"metrics": {}}, 2, "no metric was recorded before and after"),
            ({"metrics": {"auc": 0.9}}, 2, "metrics are not told apart by split"),
            ({"findings": ()}, 3, "no metric was held against a baseline"),
        ],
    )
    def test_each_box_is_unticked_by_what_is_missing(self, change, item, said):
        """And says how to fill the gap."""
        evidence = (seen("failed", BROKEN, **{"findings": (LEAK, WORSE)} | change), seen("passed", FIXED, **change))
        found = checklist(Incident(name="loan-leak", evidence=evidence), STORY)[item]
        assert not found.done
        assert said in found.said

    def test_a_recorded_run_wants_gradients_and_loss(self):
        """Where a run was asked about, both families belong to it."""
        run = Finding(ok=False, id="gradients.explosion", headline="x", culprit="x")
        evidence = (seen("failed", BROKEN, (run, WORSE)), seen("passed", FIXED, (FINE,)))
        found = checklist(Incident(name="loan-leak", evidence=evidence), STORY)[2]
        assert "gradients and loss of the run were not both inspected" in found.said
        loss = Finding(ok=True, id="losses.plateau", headline="x", looked_at="x")
        evidence = (*evidence, seen("passed", FIXED, (loss, FINE)))
        assert checklist(Incident(name="loan-leak", evidence=evidence), STORY)[2].done

    def test_a_regression_check_that_failed_last_does_not_count(self):
        """Executed is not enough."""
        evidence = (seen("failed", BROKEN, (LEAK, FINE)), seen("failed", FIXED, (WORSE,)))
        found = checklist(Incident(name="loan-leak", evidence=evidence), STORY)[3]
        assert "the last regression check did not pass" in found.said

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ("rollback", "rollback is not written down"),
            ("rollback_tried", "rollback was not tried"),
            ("root_cause", "root cause: nobody wrote it down (root_cause)"),
            ("owners", "owner: nobody answers for tests/test_loan.py::test_h1 (owners)"),
            ("constraints", "constraint, budget: nobody wrote it down (constraints.budget)"),
        ],
    )
    def test_each_missing_entry_is_named_with_its_key(self, entry, said):
        """So that it can be written."""
        kept = {n: getattr(STORY, n) for n in STORY.__slots__ if n != entry}
        assert any(said in gap for gap in gaps(INCIDENT, Story(**kept)))

    def test_a_skipped_monitor_is_a_gap(self):
        """It watches nothing."""
        skipped = seen("skipped", FIXED, reason="slow")
        found = gaps(Incident(name="loan-leak", evidence=(*INCIDENT.evidence, skipped)), STORY)
        assert found == ("H1: skipped since (slow): it watches nothing at present",)

    def test_owners_by_test_hypothesis_pattern_or_for_all(self):
        """The most special one counts."""
        owners = {"*": "all", "tests/*": "never reached", "H1": "Ada", "t.py::test_x": "Bob"}
        story = Story(owners=owners)
        assert owner_of(story, "H2", "t.py::test_x") == "Bob"
        assert owner_of(story, "H1", "t.py::test_y") == "Ada"
        assert owner_of(story, "H2", "t.py::test_y") == "all"
        assert owner_of(Story(), "H2", "t.py::test_y") == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
HOSTILE = "a|b`c``d\n# x\n<script>alert(1)</script>[l](http://evil.example)![i](x)*b*_c_$x$~~d~~\\|\x1b[31m&amp;"


class TestHostileNames:
    def test_they_stay_in_their_cells_and_lines(self):
        """A name with every sign of Markdown in it changes nothing of the report's shape."""
        hostile = Finding(ok=False, id="leakage.label_leak", headline=HOSTILE, culprit=HOSTILE, limit=("max_auc", 0.95))
        more = {"claim": HOSTILE, "family": HOSTILE, "nodeid": HOSTILE, "reason": HOSTILE, "text": HOSTILE}
        more |= {"branch": HOSTILE, "tree": HOSTILE, "time": HOSTILE, "metrics": {HOSTILE: HOSTILE}}
        evidence = (seen("failed", BROKEN, (hostile,), **more), seen("passed", FIXED, **more))
        names = {n: HOSTILE for n in STORY.__slots__ if isinstance(getattr(STORY, n), str)}
        story = Story(**names, owners={"*": HOSTILE}, constraints={HOSTILE: HOSTILE}, prevention=(HOSTILE,))
        text = incident_markdown(Incident(name="loan-leak", evidence=evidence), story, problems=[HOSTILE])
        plain = incident_markdown(INCIDENT, STORY, problems=["x"])
        heads = [line for line in text.splitlines() if line.startswith("#")]
        assert heads == [line for line in plain.splitlines() if line.startswith("#")]
        assert "\x1b" not in text
        outside = re.sub(r"^(`{3,})console\n.*?\n\1$", "", text, flags=re.DOTALL | re.MULTILINE)
        outside = re.sub(r"(`+).*?(?<!`)\1(?!`)", "", outside.replace("\\`", ""))
        assert not re.search(r"(?<!\\)[\[<]script|<script|(?<!\\)\]\(|http://evil", outside)
        widths = {5, 7, 4}
        for line in text.splitlines():
            if line.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) - 1 in widths

    @settings(deadline=None, max_examples=300)
    @given(st.data())
    def test_whatever_a_ledger_accepts_can_be_reported(self, data):
        """A law over damaged records: refused with a sentence when read, or shown; never an error in the report."""
        record = seen("failed", BROKEN, (LEAK, WORSE)).as_dict()
        target = data.draw(st.sampled_from([record, record["findings"][0], record["environment"], record["metrics"]]))
        target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
        try:
            e = evidence_from_dict(json.loads(json.dumps(record)))
        except ValueError:
            return
        for evidence in ((e,), (e, seen("passed", FIXED, (NO_LEAK, FINE)))):
            incident = Incident(name="loan-leak", evidence=evidence)
            assert incident_markdown(incident, STORY)
            assert json.dumps(incident_json(incident, STORY), allow_nan=False)

    @settings(deadline=None)
    @given(st.text())
    def test_escaped_text_is_one_line_without_live_signs(self, text):
        """Unescaping gives the text back, up to white space and control signs."""
        line = escape(text, 10**6)
        assert "\n" not in line
        assert not re.search(r"(?<!\\)(?:\\\\)*[`*\[\]|~$<>]", line.replace("&lt;", "").replace("&gt;", ""))
        if text.isprintable() and "\\" not in text:
            again = html.unescape(re.sub(r"\\([`*\[\]|~$_])", r"\1", line))
            assert again == " ".join(text.split())

    @settings(deadline=None)
    @given(st.text(alphabet="`|a \\\n"))
    def test_a_code_span_cannot_be_left(self, text):
        """Its fence is longer than any run of backticks inside; with a bar in it, everything is escaped."""
        span = code(text)
        if "|" in text:
            assert span == f"<code>{escape(text)}</code>"
        elif span:
            fence = re.match("`+", span).group()
            assert span.endswith(fence)
            inside = span[len(fence) : -len(fence)]
            assert len(fence) not in {len(run) for run in re.findall("`+", inside)}

    @settings(deadline=None)
    @given(st.lists(st.text(alphabet="`~a\n"), min_size=1))
    def test_a_code_block_cannot_be_left(self, lines):
        """Neither by a fence nor by a line feed."""
        first, *inside, last = block(lines)
        assert len(inside) == len(lines)
        assert first == f"{last}console"
        assert all(last not in line for line in inside)
