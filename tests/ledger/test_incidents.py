"""An incident from disk: ledger, people's own words, report."""

import subprocess

import pytest

from pytest_mltd.core.incidents import Evidence, Story, evidence_of
from pytest_mltd.core.trials import Condition, Outcome
from pytest_mltd.ledger import evidence as ledger
from pytest_mltd.ledger.files import LedgerError
from pytest_mltd.ledger.incidents import incidents_in, open_incident, read_story, save_report
from pytest_mltd.ledger.provenance import provenance


@pytest.fixture
def root(tmp_path):
    e = Evidence(incident="loan-leak", hypothesis="H1", nodeid="t.py::test", kind="failed", commit="a" * 40)
    ledger.append(ledger.ledger_path(tmp_path, "loan-leak"), e)
    return tmp_path


def write(root, text):
    path = root / "incidents" / "loan-leak.toml"
    path.write_text(text)
    return path


class TestOpening:
    def test_an_incident_is_its_ledger_and_its_story(self, root):
        """Found below the root, with nothing amiss."""
        write(root, 'summary = "AUC jumped"')
        opened = open_incident(root, "loan-leak")
        assert opened.incident.hypothesis("H1").status == "supported"
        assert opened.story.summary == "AUC jumped"
        assert opened.problems == ()
        assert incidents_in(root) == ("loan-leak",)

    def test_without_a_story_it_is_empty(self, root):
        """The report will name what is missing."""
        assert open_incident(root, "loan-leak").story == Story()

    def test_an_unknown_incident_gets_the_nearest_name_and_the_command(self, root):
        """One sentence, nothing created."""
        with pytest.raises(
            LedgerError, match="no incident 'loan-lek'; the nearest is 'loan-leak'.*pytest --mltd-incident"
        ):
            open_incident(root, "loan-lek")
        with pytest.raises(LedgerError, match="no incident 'zzz'; there are loan-leak"):
            open_incident(root, "zzz")
        assert incidents_in(root) == ("loan-leak",)

    def test_without_any_incident_it_says_so(self, tmp_path):
        """The first one is made by a marked test."""
        with pytest.raises(LedgerError, match="there is none yet"):
            open_incident(tmp_path, "x")

    def test_problems_do_not_name_the_folder_of_this_machine(self, root):
        """The report is committed; its bytes are the same for everybody."""
        path = ledger.ledger_path(root, "loan-leak")
        path.write_bytes(path.read_bytes() + b"{half")
        write(root, "summary = ")
        problems = open_incident(root, "loan-leak").problems
        assert [p.partition(":")[0] for p in problems] == ["loan-leak.jsonl line 2", "loan-leak.toml"]


class TestStory:
    def test_every_entry_of_the_procedure_has_a_place(self, root):
        """Texts, dates, lists, owners, and lowered confidences with their reasons."""
        path = write(
            root,
            """
            started = 2026-11-02
            detected = 2026-11-03T08:00:00Z
            root_cause = "a column written after the outcome"
            contributing = ["no review of new columns"]
            remaining_risks = "other tables"
            owners = { "*" = "data team", H1 = "Ada" }
            constraints = { budget = "two days", "Metric targets" = 0.8 }
            [confidence]
            H1 = { value = 0.6, reason = "one dataset only" }
            """,
        )
        story, complaints = read_story(path)
        assert complaints == ()
        assert (story.started, story.detected) == ("2026-11-02", "2026-11-03T08:00:00+00:00")
        assert story.contributing == ("no review of new columns",)
        assert story.remaining_risks == ("other tables",)
        assert story.owners == {"*": "data team", "H1": "Ada"}
        assert story.constraints == {"budget": "two days", "metric_targets": "0.8"}
        assert story.lowered == {"H1": (0.6, "one dataset only")}

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('sumary = "x"', "unknown entry 'sumary'; the nearest is 'summary'"),
            ("zzz = 1", "unknown entry 'zzz'"),
            ("summary = [1]", "summary: text is needed, not [1]"),
            ('owners = "me"', "owners: a table is needed"),
            ("confidence = 0.5", "confidence: a table is needed"),
            ("confidence = { H1 = 0.5 }", "confidence.H1: a value within 0 and 1 is needed"),
            ("confidence = { H1 = { value = 0.5 } }", "confidence.H1: lowering needs a reason in words"),
            (
                'confidence = { H1 = { value = 2, reason = "x" } }',
                "confidence.H1: a value within 0 and 1 is needed, not 2",
            ),
            ("contributing = [[1]]", "contributing: text is needed"),
            ('root_cause = ""\nroot_cause = ""', "not readable as TOML"),
            ("\x00", "not readable as TOML"),
        ],
    )
    def test_a_wrong_entry_is_named_and_costs_no_other(self, root, text, said):
        """Nothing raises: the report is made, and says what was not understood."""
        story, complaints = read_story(write(root, f'impact = "big"\n{text}'))
        (complaint,) = complaints
        assert said in complaint
        assert story.impact == ("" if "TOML" in said else "big")

    def test_the_keys_shown_in_the_documentation_are_the_keys(self):
        """`lowered` is the value's own name; people write `confidence`."""
        assert read_story("/no/such/file") == (Story(), ())


class TestReport:
    def test_it_is_saved_beside_the_ledger_and_replaced(self, root):
        """The same name each time, marked as ours."""
        opened = open_incident(root, "loan-leak")
        first = save_report(opened, "# a\n")
        assert first == root / "incidents" / "loan-leak.md"
        assert save_report(opened, "# b\n").read_text().endswith("\n\n# b\n")

    def test_a_file_that_a_person_wrote_is_left_alone(self, root):
        """It has no mark of ours."""
        (root / "incidents" / "loan-leak.md").write_text("my notes")
        with pytest.raises(LedgerError, match="mltd did not write this file and leaves it alone"):
            save_report(open_incident(root, "loan-leak"), "# a")
        assert (root / "incidents" / "loan-leak.md").read_text() == "my notes"


class TestThroughARealRepository:
    def test_red_then_committed_fix_then_green(self, tmp_path):
        """Two hypotheses in a repository: one fixed, one refuted; committing the ledger in between changes nothing."""

        def git(*arguments):
            who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

        def ran(**kinds):
            facts = provenance(tmp_path, fresh=True)
            for hypothesis, kind in kinds.items():
                outcome = Outcome(kind=kind, fingerprint="f" if kind == "failed" else "")
                e = evidence_of(
                    outcome, Condition(seed=0), facts, id=f"leak/{hypothesis}", nodeid=f"t.py::{hypothesis}"
                )
                ledger.append(ledger.ledger_path(tmp_path, "leak"), e)
            return {h.id: h.status for h in open_incident(tmp_path, "leak").incident.hypotheses}

        git("init", "-q")
        (tmp_path / "model.py").write_text("bug = True\n")
        git("add", ".")
        git("commit", "-q", "-m", "x")
        assert ran(H1="failed", H2="passed") == {"H1": "supported", "H2": "refuted"}
        git("add", ".")
        git("commit", "-q", "-m", "the ledger")
        assert ran(H1="passed")["H1"] == "undecided"  # nothing but the ledger was committed: luck
        (tmp_path / "incidents" / "leak.jsonl").unlink()
        assert ran(H1="failed", H2="passed") == {"H1": "supported", "H2": "refuted"}
        (tmp_path / "model.py").write_text("bug = False\n")
        assert ran(H1="passed", H2="passed") == {"H1": "fixed", "H2": "refuted"}
        git("commit", "-q", "-a", "-m", "the fix")
        assert ran(H1="passed", H2="passed") == {"H1": "fixed", "H2": "refuted"}
        (tmp_path / "model.py").write_text("bug = True\n")
        git("commit", "-q", "-a", "-m", "the fix, taken back")
        assert ran(H1="failed")["H1"] == "regressed"
