"""Status and confidence, folded from evidence: the rules of the procedure, one sentence a test."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_mltd.core import folding
from pytest_mltd.core.confidence import CEILING
from pytest_mltd.core.findings import Finding
from pytest_mltd.core.incidents import Evidence, Incident

BROKEN, FIXED, LATER = "a" * 40, "b" * 40, "c" * 40
TIMES = {BROKEN: "2026-01-01T00:00:00+00:00", FIXED: "2026-01-02T00:00:00+00:00", LATER: "2026-01-03T00:00:00+00:00"}
LEAK = Finding(ok=False, id="leakage.label_leak", headline="'x' tells", culprit="x", evidence="observation")


def seen(kind, commit=BROKEN, hypothesis="H1", **more):
    """Return one record: reproduced, seeded, with a finding when it failed, unless told otherwise."""
    values = {
        "incident": "leak",
        "hypothesis": hypothesis,
        "nodeid": f"tests/test_x.py::test_{hypothesis.lower()}",
        "kind": kind,
        "findings": (LEAK,) if kind == "failed" else (),
        "fingerprint": "f" if kind == "failed" else "",
        "seed": 0,
        "runs": 2,
        "commit": commit,
        "committed": TIMES.get(commit, ""),
        "claim": "x tells the label",
        **more,
    }
    return Evidence(**values)


def h(*evidence, name="H1"):
    return Incident(name="leak", evidence=evidence).hypothesis(name)


class TestStatus:
    def test_red_on_the_broken_code_is_supported(self):
        """One failing run supports, and the reason names the commit."""
        found = h(seen("failed"))
        assert found.status == "supported"
        assert found.folded.why == "seen failing on aaaaaaaaaa"

    def test_red_then_green_on_another_commit_is_fixed(self):
        """The order red, green on two states of the code is what fixed means."""
        found = h(seen("failed"), seen("passed", FIXED))
        assert found.status == "fixed"
        assert found.folded.why == "red on aaaaaaaaaa, then green on bbbbbbbbbb"
        assert folding.STATUS_WORDS[found.status] == "supported and fixed"

    def test_red_then_green_on_another_uncommitted_tree_is_fixed(self):
        """Two digests of the working tree are two states, though the commit is one."""
        found = h(seen("failed", tree="1", dirty=True), seen("passed", tree="2", dirty=True))
        assert found.status == "fixed"

    def test_green_where_a_sibling_was_red_is_refuted(self):
        """The code was broken there, another hypothesis proved it, and this one did not see it."""
        found = h(seen("failed"), seen("passed", hypothesis="H2"), name="H2")
        assert found.status == "refuted"
        assert found.folded.why == "passed on the broken code (aaaaaaaaaa), where H1 was seen failing"

    def test_a_pass_that_asked_nothing_refutes_nothing(self):
        """An empty test beside a sibling that failed leaves its hypothesis untested, and says why."""
        found = h(seen("failed", hypothesis="H2"), seen("passed", asked_nothing=True))
        assert (found.status, found.confidence.value) == ("untested", 0.0)
        assert found.folded.why == "its test passed and asked nothing: no check, no recorded run, no assert in its text"

    def test_a_pass_that_asked_nothing_counts_once_the_test_has_failed(self):
        """A test that was red without a check has shown that it can fail, so its green tells something."""
        assert h(seen("failed"), seen("passed", FIXED, asked_nothing=True)).status == "fixed"

    def test_green_only_is_not_refuted_without_a_witness(self):
        """A test that passed somewhere, and never failed, says nothing about the incident."""
        found = h(seen("passed"))
        assert found.status == "never failed"
        assert "nothing of this incident was seen failing there" in found.folded.why
        assert found.confidence.value == 0.0

    @pytest.mark.parametrize("other", [{"commit": FIXED}, {"tree": "1", "dirty": True}])
    def test_a_witness_on_other_code_refutes_nothing(self, other):
        """Green after the fix, or on another working tree, is not green on the broken code."""
        found = h(seen("failed"), seen("passed", hypothesis="H2", **other), name="H2")
        assert found.status == "never failed"

    def test_a_planted_fault_is_no_witness(self):
        """A test that fails with a fault planted on purpose does not make the code broken."""
        found = h(seen("failed", fault="label_shuffle"), seen("passed", hypothesis="H2"), name="H2")
        assert found.status == "never failed"

    def test_its_own_failure_does_not_refute(self):
        """A hypothesis is not its own witness: one red and one green test of it leave it supported."""
        found = h(seen("failed", nodeid="a"), seen("passed", nodeid="b"))
        assert found.status == "supported"

    def test_red_again_after_the_fix_is_regressed(self):
        """The monitor did its work."""
        found = h(seen("failed"), seen("passed", FIXED), seen("failed", LATER))
        assert found.status == "regressed"
        assert found.folded.why == "green on bbbbbbbbbb, red again on cccccccccc"

    def test_another_failure_after_the_fix_is_said(self):
        """Red again in another way may be another incident."""
        found = h(seen("failed"), seen("passed", FIXED), seen("failed", LATER, fingerprint="g"))
        assert "it fails in another way than before the fix" in found.folded.notes

    def test_fixed_again_after_a_regression(self):
        """Red, green, red, green on four states is fixed."""
        last = "d" * 40
        evidence = [seen("failed"), seen("passed", FIXED), seen("failed", LATER)]
        found = h(*evidence, seen("passed", last, committed="2026-01-04T00:00:00+00:00"))
        assert found.status == "fixed"

    def test_going_back_to_the_broken_commit_is_no_regression(self):
        """Looking again at the old code changes nothing of what the new code showed."""
        found = h(seen("failed"), seen("passed", FIXED), seen("failed"))
        assert found.status == "fixed"

    def test_looking_at_an_older_commit_that_was_good_is_no_fix(self):
        """A search by halving visits old commits; their order is that of the commits, not of the visits."""
        found = h(seen("failed", LATER), seen("passed", BROKEN))
        assert found.status == "supported"
        assert any("it passed before, on aaaaaaaaaa" in note for note in found.folded.notes)

    def test_without_commit_times_the_order_of_recording_counts(self):
        """Where git was absent, first come is first."""
        evidence = [
            seen("failed", commit="", committed="", tree="1"),
            seen("passed", commit="", committed="", tree="2"),
        ]
        assert h(*evidence).status == "fixed"
        assert h(*reversed(evidence)).status == "supported"

    def test_red_and_green_on_the_same_code_is_undecided(self):
        """Nothing that git sees changed: flaky, or outside."""
        found = h(seen("failed"), seen("passed"))
        assert found.status == "undecided"
        assert "flaky, or something that git does not see changed" in found.folded.why

    def test_two_commits_of_the_same_code_are_not_red_and_fixed(self):
        """Between them only the ledger was committed: green there is luck, or something outside."""
        found = h(seen("failed", code="1"), seen("passed", FIXED, code="1"))
        assert found.status == "undecided"
        assert found.folded.why.startswith("red and green on the same code (aaaaaaaaaa and bbbbbbbbbb)")

    def test_a_fix_that_was_taken_back_is_regressed(self):
        """The reverting commit has the code of the broken one, and is newer than the fix."""
        found = h(seen("failed", code="1"), seen("passed", FIXED, code="2"), seen("failed", LATER, code="1"))
        assert found.status == "regressed"

    def test_the_same_code_under_another_commit_is_a_witness(self):
        """Red before the commit and green after it, with nothing changed, is green on the broken code."""
        found = h(seen("failed", code="1"), seen("passed", FIXED, hypothesis="H2", code="1"), name="H2")
        assert found.status == "refuted"

    def test_a_test_changed_to_green_is_named_as_the_suspect(self):
        """Nothing but the test became another."""
        found = h(seen("failed", code="1", test_digest="a"), seen("passed", FIXED, code="1", test_digest="b"))
        assert found.status == "undecided"
        assert found.folded.why.endswith("the test's own text changed")

    def test_a_changed_environment_is_named_as_the_suspect(self):
        """Red and green on one commit with two versions of torch: the reason says so."""
        found = h(seen("failed", environment={"torch": "2.12"}), seen("passed", environment={"torch": "2.13"}))
        assert found.status == "undecided"
        assert "the environment differed (torch 2.12 and 2.13)" in found.folded.why

    def test_an_unknown_state_of_the_code_fixes_nothing(self):
        """Without commit and tree, red then green may be anything."""
        found = h(seen("failed", commit=""), seen("passed", commit=""))
        assert found.status == "undecided"
        assert "neither commit nor code was recorded" in found.folded.why

    def test_runs_that_differed_are_undecided(self):
        """A flaky failure supports nothing by itself."""
        assert h(seen("failed", agreed=False)).status == "undecided"

    def test_a_pass_whose_runs_differed_is_no_plain_pass(self):
        """It is flaky where it was seen, and later greens have to outweigh it."""
        assert h(seen("passed", agreed=False)).status == "undecided"
        assert h(seen("passed", agreed=False), seen("passed", FIXED, runs=1)).status == "undecided"
        assert h(seen("passed", agreed=False), seen("passed", FIXED, runs=5)).status == "fixed"

    def test_runs_that_differed_support_a_claim_of_nondeterminism(self):
        """Differing is just what that hypothesis says."""
        assert h(seen("failed", agreed=False, family="nondeterminism")).status == "supported"
        both = [seen("failed", family="nondeterminism"), seen("passed", family="nondeterminism")]
        assert h(*both).status == "supported"

    def test_a_flaky_test_is_fixed_only_when_luck_is_unlikely(self):
        """Red in 1 of 2 runs: one green pair may be luck (0.25), five greens are not (0.03)."""
        flaky = [seen("failed", runs=1), seen("passed", runs=1)]
        found = h(*flaky, seen("passed", FIXED))
        assert found.status == "undecided"
        assert "red in 1 of 2 runs" in found.folded.why
        assert "5 green runs would tell" in found.folded.why
        sure = h(*flaky, *[seen("passed", FIXED, runs=1)] * 5)
        assert sure.status == "fixed"
        assert any("flaky before" in reason for reason in sure.confidence.reasons)

    def test_another_seed_on_the_same_code_is_not_flaky(self):
        """Red with seed 0 and green with seed 1 is supported, and says on what it depends."""
        found = h(seen("failed", seed=0), seen("passed", seed=1))
        assert found.status == "supported"
        assert any("another seed, slice or number of steps" in note for note in found.folded.notes)

    def test_one_red_seed_on_the_newest_code_is_not_fixed(self):
        """Green with seed 0 does not outweigh red with seed 1."""
        found = h(seen("failed"), seen("passed", FIXED), seen("failed", FIXED, seed=1))
        assert found.status == "supported"

    @pytest.mark.parametrize(
        ("kind", "status"), [("skipped", "untested"), ("undecided", "undecided"), ("passed", "never failed")]
    )
    def test_what_says_nothing_claims_nothing(self, kind, status):
        """Skips, trials without a verdict and lone greens have confidence 0."""
        found = h(seen(kind, reason="no GPU"))
        assert found.status == status
        assert found.confidence.value == 0.0
        assert kind == "passed" or "no GPU" in found.folded.why

    def test_a_monitor_that_is_skipped_now_is_noticed(self):
        """Fixed, then skipped: the status stays and the note says that nothing watches."""
        found = h(seen("failed"), seen("passed", FIXED), seen("skipped", LATER, reason="too slow"))
        assert found.status == "fixed"
        assert "skipped since (too slow): it watches nothing at present" in found.folded.notes

    def test_a_last_run_without_a_verdict_is_noticed(self):
        """Fixed, then a trial that timed out: the status stays and the note says so."""
        found = h(seen("failed"), seen("passed", FIXED), seen("undecided", LATER, reason="timed out"))
        assert found.status == "fixed"
        assert "its last run came to no verdict (timed out)" in found.folded.notes

    def test_a_monitor_that_did_not_run_on_the_newest_code_is_noticed(self):
        """A deleted or renamed test has no verdict on the newest state of the incident."""
        found = h(seen("failed"), seen("failed", FIXED, hypothesis="H2"))
        assert "it has not run on the newest code of which the incident has evidence" in found.folded.notes

    def test_several_tests_the_worst_decides(self):
        """One test still red keeps the hypothesis supported; the other's verdict is a note."""
        found = h(seen("failed", nodeid="a"), seen("passed", FIXED, nodeid="a"), seen("failed", FIXED, nodeid="b"))
        assert found.status == "supported"
        assert found.folded.why.startswith("b: ")
        assert any(note.startswith("a: supported and fixed") for note in found.folded.notes)
        assert found.tests == ("a", "b")

    def test_several_tests_all_fixed_is_fixed(self):
        """A skipped third test does not change it."""
        evidence = [
            seen(kind, commit, nodeid=n) for kind, commit in (("failed", BROKEN), ("passed", FIXED)) for n in "ab"
        ]
        assert h(*evidence, seen("skipped", FIXED, nodeid="c")).status == "fixed"


class TestConfidence:
    def test_it_is_the_ceiling_when_nothing_is_missing(self):
        """Reproduced, seeded, committed, with a finding, red and then green: nothing is taken off."""
        found = h(seen("failed"), seen("passed", FIXED)).confidence
        assert (found.value, found.ceiling, found.kind, found.reasons) == (0.95, 0.95, "observation", ())

    @pytest.mark.parametrize("kind", CEILING)
    def test_the_kind_of_evidence_caps_it(self, kind):
        """Each kind has the procedure's ceiling."""
        weak = (dataclasses.replace(LEAK, evidence=kind),)
        found = h(seen("failed", findings=weak), seen("passed", FIXED)).confidence
        assert (found.value, found.ceiling) == (CEILING[kind], CEILING[kind])

    @pytest.mark.parametrize(
        ("change", "lost", "said"),
        [
            ({"runs": 1}, 0.10, "seen once"),
            ({"seed": None}, 0.05, "no seed"),
            ({"dirty": True, "tree": "1"}, 0.05, "in no commit"),
            ({"findings": ()}, 0.10, "without a finding"),
            ({"test_digest": "old"}, 0.10, "test's own text changed"),
            ({"steps": 5}, 0.10, "run it under the same condition"),
        ],
    )
    def test_each_missing_proof_takes_something_off_and_is_named(self, change, lost, said):
        """One gap at a time."""
        green = {"test_digest": "new"} | ({"seed": None} if "seed" in change else {})
        found = h(seen("failed", **change), seen("passed", FIXED, **green)).confidence
        assert found.value == pytest.approx(0.95 - lost)
        (reason,) = found.reasons
        assert said in reason
        assert reason.startswith(f"-{lost:.2f}")

    def test_a_cause_without_a_fix_is_less_sure(self):
        """Only turning it green tells a cause from a symptom."""
        found = h(seen("failed")).confidence
        assert found.value == pytest.approx(0.85)
        assert found.reasons == ("-0.10 no fix has been seen to turn it green",)

    def test_two_equal_failures_count_as_reproduced(self):
        """Recorded twice on the same code in the same way."""
        once = [seen("failed", runs=1)]
        assert any("seen once" in r for r in h(*once).confidence.reasons)
        assert not any("seen once" in r for r in h(*once, *once).confidence.reasons)

    def test_a_person_may_lower_it_with_a_reason(self):
        """The lower number counts and the reason is kept."""
        incident = Incident(name="leak", evidence=(seen("failed"),), lowered={"H1": (0.3, "one dataset only")})
        found = incident.hypothesis("H1").confidence
        assert found.value == 0.3
        assert found.reasons[-1] == "lowered from 0.85 by a person: one dataset only"

    def test_nobody_can_raise_it(self):
        """A higher number changes nothing, and that it was asked for is said."""
        incident = Incident(name="leak", evidence=(seen("failed"),), lowered={"H1": (1.0, "trust me")})
        found = incident.hypothesis("H1").confidence
        assert found.value == pytest.approx(0.85)
        assert "nobody can raise it" in found.reasons[-1]

    def test_nothing_claimed_cannot_be_raised_either(self):
        """Zero stays zero."""
        incident = Incident(name="leak", evidence=(seen("passed"),), lowered={"H1": (0.9, "I feel it")})
        assert incident.hypothesis("H1").confidence.value == 0.0


records = st.builds(
    seen,
    st.sampled_from(["passed", "failed", "skipped", "undecided"]),
    st.sampled_from([BROKEN, FIXED, LATER, ""]),
    hypothesis=st.sampled_from(["H1", "H2", "H10"]),
    seed=st.sampled_from([None, 0, 1]),
    runs=st.integers(1, 3),
    agreed=st.booleans(),
    dirty=st.booleans(),
    tree=st.sampled_from(["", "1"]),
    code=st.sampled_from(["", "1", "2"]),
    fault=st.sampled_from(["", "", "x"]),
    family=st.sampled_from(["", "nondeterminism"]),
)


class TestLaws:
    @settings(deadline=None)
    @given(st.lists(records, max_size=12))
    def test_confidence_never_passes_its_ceiling(self, evidence):
        """Whatever was recorded, in whatever order."""
        for found in Incident(name="leak", evidence=tuple(evidence)).hypotheses:
            assert found.status in folding.STATUS_WORDS
            assert 0.0 <= found.confidence.value <= found.confidence.ceiling <= 0.95
            assert found.folded.why

    @settings(deadline=None)
    @given(st.lists(records, max_size=12))
    def test_never_red_is_never_supported(self, evidence):
        """No status but these three can come from runs that did not fail."""
        green = [e for e in evidence if e.kind == "passed" and e.agreed]
        for found in Incident(name="leak", evidence=tuple(green)).hypotheses:
            assert found.status in ("never failed", "untested")

    @settings(deadline=None)
    @given(st.lists(records, min_size=1, max_size=8), st.lists(records, max_size=4))
    def test_other_hypotheses_change_a_status_only_by_witnessing(self, evidence, others):
        """Only "never failed" can become "refuted"; every other status stands on its own evidence."""
        own = [dataclasses.replace(e, hypothesis="H1") for e in evidence]
        alone = Incident(name="leak", evidence=tuple(own)).hypothesis("H1").status
        others = [dataclasses.replace(e, hypothesis="H2") for e in others]
        together = Incident(name="leak", evidence=tuple(own + others)).hypothesis("H1").status
        assert (alone, together) in {(alone, alone), ("never failed", "refuted")}

    def test_hypotheses_are_listed_in_natural_order(self):
        """H2 comes before H10."""
        evidence = tuple(seen("passed", hypothesis=n) for n in ("H10", "H2", "H1"))
        assert [x.id for x in Incident(name="leak", evidence=evidence).hypotheses] == ["H1", "H2", "H10"]

    def test_the_fold_is_the_same_each_time(self):
        """Asking twice answers once: nothing is stored or consumed."""
        kinds = itertools.product(["passed", "failed"], [BROKEN, FIXED])
        found = h(*(seen(k, c) for k, c in kinds))
        assert found.folded == found.folded
