"""The driver that runs something twice: what it attempts, and what it makes of the outcomes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mltd.core.findings import Finding, not_asked
from pytest_mltd.core.trials import Condition, Outcome
from pytest_mltd.trials.repro import judge, repro


def compare(first, second):
    """Compare "traces" by their names."""
    same = first == second
    return Finding(
        ok=same, headline="equal" if same else "differ at step 3", culprit="" if same else "w", looked_at="all"
    )


def attempts(*outcomes):
    """Return a runner that hands out outcomes in turn, and the list of the conditions it was given."""
    waiting, given_conditions = list(outcomes), []

    def attempt(condition):
        given_conditions.append(condition)
        return waiting.pop(0)

    return attempt, given_conditions


def passed(*traces, **more):
    return Outcome(kind="passed", traces=traces, **more)


def failed(fingerprint="f", *traces, text=""):
    return Outcome(kind="failed", fingerprint=fingerprint, traces=traces, asked=1, text=text)


SEED = Condition(seed=0)


@pytest.mark.parametrize(
    ("outcomes", "verdict", "ok", "sentence"),
    [
        ([passed()], "once", True, "passed, run once"),
        ([Outcome(kind="skipped", traces=("a",))], "once", True, "skipped, run once"),
        ([Outcome(kind="failed")], "once", False, "failed, run once"),
        ([passed("a"), passed("a")], "same", True, "passed 2 of 2, bit for bit"),
        ([passed(asked=1), passed(asked=1)], "same", True, "passed 2 of 2, outcome and findings; no run was recorded"),
        ([failed("f", "a"), failed("f", "a")], "same", False, "reproduced 2 of 2, bit for bit"),
        ([passed("a"), passed("b")], "differs", False, "passed 2 of 2, but not bit for bit: differ at step 3"),
        ([failed("f", "a"), failed("f", "b")], "differs", False, "failed 2 of 2, but not bit for bit"),
        ([passed("a"), failed("f", "a")], "flaky", False, "flaky: passed then failed"),
        ([failed("f", "a"), passed("b")], "flaky", False, "flaky: failed then passed: differ at step 3"),
        ([failed("f"), failed("g")], "flaky", False, "flaky: failed twice, not with the same failure"),
        ([passed("a"), passed("a", "b")], "differs", False, "the first run of the test recorded 1 runs, the second 2"),
        ([passed("a", wrote="x.txt")], "stopped", False, "stopped: it was about to change 'x.txt'"),
        ([passed("a"), passed("a", wrote="x.txt")], "stopped", False, "stopped: it was about to change 'x.txt'"),
        ([Outcome(kind="undecided", reason="no python")], "undecided", False, "not compared: no python"),
        ([passed("a"), Outcome(kind="undecided", reason="gone")], "undecided", False, "not compared: gone"),
    ],
)
def test_each_verdict(outcomes, verdict, ok, sentence):
    """Every pair of outcomes has its verdict and its sentence, and takes no more runs than it needs."""
    attempt, conditions = attempts(*outcomes)
    result = repro(attempt, SEED, compare=compare)
    assert (result.verdict, result.ok) == (verdict, ok)
    assert sentence in result.sentence
    assert conditions == [SEED] * len(outcomes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("E: /tmp/a/run 0x7f01 took 0.5 s", "E: /tmp/b/run 0x7f02 took 0.75 s"),
        ("E: at 2026-01-02T03:04:05.678 (1764000000.5)", "E: at 2026-01-02 03:04:07 (1764000002.25)"),
        ("12 ms, 1.5 seconds, tmpabcd1234", "13.5 ms, 0.1 seconds, tmpefgh5678"),
    ],
)
def test_paths_addresses_and_times_in_a_message_are_no_difference(one, other):
    """What is never the same twice takes nothing from a reproduced failure."""
    result = judge(failed("f", "a", text=one), failed("f", "a", text=other), compare)
    assert result.sentence == "reproduced 2 of 2, bit for bit"


@pytest.mark.parametrize(
    ("traces", "sentence"),
    [
        (["a"], "reproduced 2 of 2; the recorded runs agree bit for bit, the numbers in the message differ"),
        ([], "reproduced 2 of 2; the numbers in the message differ"),
    ],
)
def test_numbers_in_a_message_that_differ_are_said(traces, sentence):
    """A failure whose measured value moves is the same failure, and is not called equal bit for bit."""
    one, other = failed("f", *traces, text="auc 0.31 < 0.9"), failed("f", *traces, text="auc 0.37 < 0.9")
    result = judge(one, other, compare)
    assert (result.verdict, result.sentence) == ("same", sentence)


def test_the_message_of_a_finding_is_compared_as_a_finding():
    """A finding's message may hold what the recording cost; its place and amount are compared by themselves."""
    leak = Finding(ok=False, id="a.b", headline="leaks by 1", culprit="leaks", amount=1.0)
    one, other = (
        Outcome(kind="failed", fingerprint="f", traces=("a",), asked=1, findings=(leak,), text=f"CheckFailed: {cost} %")
        for cost in (3, 4)
    )
    assert judge(one, other, compare).sentence == "reproduced 2 of 2, bit for bit"


def test_only_what_was_recorded_is_called_equal():
    """Where a recording was full before the program ended, the verdict says how far it reached."""

    def full(first, second):
        return Finding(ok=True, headline="equal", looked_at="all", details={"recorded_steps": 200})

    assert judge(passed("a"), passed("a"), full).sentence == "passed 2 of 2, bit for bit in the first 200 steps"


def test_recorded_runs_that_could_not_be_compared_claim_no_bits():
    """A comparison that was not asked is no agreement bit for bit; its reason is said."""

    def not_compared(first, second):
        return not_asked("nothing was trained while recording")

    attempt, _ = attempts(passed("a"), passed("b"))
    result = repro(attempt, SEED, compare=not_compared)
    assert (result.verdict, result.compared) == ("same", 0)
    assert result.sentence == "passed 2 of 2, outcome and findings; nothing was trained while recording"


def test_findings_that_differ_are_a_difference():
    """Another amount, culprit or verdict of a check counts; a measured time does not."""

    def asked(amount, id="overlap.row_overlap"):
        return passed(asked=1, findings=(Finding(ok=True, id=id, headline="x", amount=amount, looked_at="all"),))

    assert judge(asked(1.0), asked(1.0), compare).verdict == "same"
    assert judge(asked(1.0), asked(2.0), compare).verdict == "differs"
    assert judge(asked(float("nan")), asked(float("nan")), compare).verdict == "same"
    assert judge(asked(1.0, "metrics.latency"), asked(2.0, "metrics.latency"), compare).verdict == "same"
    assert judge(asked(1.0), passed(asked=1), compare).verdict == "differs"


def test_metrics_that_differ_are_a_difference_and_latencies_are_not():
    """What a test held against its baseline is compared between the runs, except what a clock decides."""

    def held(auc, latency):
        details = {"current": {"val": {"auc": auc, "latency_ms": latency}}}
        finding = Finding(
            ok=True, id="metrics.regression", headline="x", amount=latency, looked_at="all", details=details
        )
        return passed(asked=1, findings=(finding,))

    assert judge(held(0.9, 1.0), held(0.9, 2.0), compare).verdict == "same"
    assert judge(held(0.9, 1.0), held(0.8, 1.0), compare).verdict == "differs"


class TestFreshInterpreters:
    FRESH = Condition(seed=0, interpreter="fresh")

    def test_the_runs_get_different_hash_seeds(self):
        """Two interpreters with one hash seed would hide what depends on it."""
        attempt, conditions = attempts(passed("a"), passed("a"))
        assert repro(attempt, self.FRESH, compare=compare).verdict == "same"
        assert [c.hash_seed for c in conditions] == [1, 2]

    @pytest.mark.parametrize(("third", "follows"), [("a", True), ("c", False)])
    def test_a_third_run_tells_whether_the_hash_seed_is_why(self, third, follows):
        """A difference that goes away with the hash seed is its own."""
        attempt, conditions = attempts(passed("a"), passed("b"), passed(third))
        result = repro(attempt, self.FRESH, compare=compare)
        assert (result.verdict, result.hash_seed) == ("differs", follows)
        assert [c.hash_seed for c in conditions] == [1, 2, 1]

    def test_a_given_hash_seed_is_kept(self):
        """A condition that names one is imposed as it is."""
        attempt, conditions = attempts(passed("a"), passed("b"))
        assert repro(attempt, Condition(interpreter="fresh", hash_seed=5), compare=compare).hash_seed is None
        assert [c.hash_seed for c in conditions] == [5, 5]


outcomes = st.builds(
    Outcome,
    kind=st.sampled_from(["passed", "failed", "skipped"]),
    fingerprint=st.sampled_from(["", "f", "g"]),
    traces=st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple),
    asked=st.integers(0, 2),
)


@given(outcomes)
def test_an_outcome_agrees_with_itself(outcome):
    """Whatever happened, happening again in the same way is "same"."""
    assert judge(outcome, outcome, compare).verdict == "same"


@given(outcomes, outcomes)
def test_the_verdict_does_not_depend_on_which_run_came_first(one, two):
    """Order tells nothing about whether two runs agree."""
    assert judge(one, two, compare).verdict == judge(two, one, compare).verdict
