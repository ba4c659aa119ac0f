"""What one trial changes, how it ended, and who overhears it."""

import json

import pytest

from pytest_mltd.core import trials
from pytest_mltd.core.asking import check, umbrella
from pytest_mltd.core.findings import Finding, diagnose_findings
from pytest_mltd.core.trials import (
    Condition,
    Outcome,
    current_condition,
    fingerprint,
    note_trace,
    observing,
    outcome_from_dict,
    under,
    words_of,
)


@check("run", family="x")
def check_it(run, *, allow=None):
    """Pass."""
    return Finding(ok=True, headline="fine")


class TestCondition:
    def test_nothing_is_imposed_by_default(self):
        """Outside a trial the condition changes nothing."""
        assert current_condition() == Condition()
        assert Condition().seed is None

    def test_the_innermost_is_in_force_and_the_outer_returns(self):
        """Also when the block raises."""
        with under(Condition(seed=1)):
            with pytest.raises(KeyboardInterrupt):
                with under(Condition(seed=2)):
                    assert current_condition().seed == 2
                    raise KeyboardInterrupt
            assert current_condition().seed == 1
        assert current_condition().seed is None

    @pytest.mark.parametrize("name", ["steps", "slice"])
    def test_less_than_one_is_refused(self, name):
        """Zero steps would examine nothing."""
        with pytest.raises(ValueError, match=f"^{name}: at least 1 is needed, not 0"):
            Condition(**{name: 0})


class TestOutcome:
    def test_json_and_back_is_the_same_outcome(self):
        """A child process can hand it over as text."""
        outcome = Outcome(
            kind="failed", fingerprint="ab", findings=(Finding(ok=False, headline="x"),), traces=("a",), asked=1
        )
        assert outcome_from_dict(json.loads(json.dumps(outcome.as_dict()))) == outcome

    def test_a_newer_version_may_have_written_more(self):
        """Unknown keys are left out."""
        assert outcome_from_dict({"kind": "passed", "colour": 1}) == Outcome(kind="passed")


class TestFingerprint:
    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("loss 0.1234 at step 3", "loss 1.5e-08 at step 17"),
            ("<Net object at 0x7f00aa>", "<Net object at 0x55beef>"),
            ("no file /tmp/pytest-0/a/model.pt", "no file /tmp/pytest-19/b/model.pt"),
            ("cannot read /tmp/tmpab12cd_3", "cannot read /tmp/tmpzz99xy_8"),
        ],
    )
    def test_it_stays_while_the_failure_does(self, one, two):
        """Measurements, addresses and temporary paths move between two runs of one failure."""
        assert fingerprint("ValueError", one, "a.py::f") == fingerprint("ValueError", two, "a.py::f")

    @pytest.mark.parametrize(
        ("one", "two"),
        [
            ("ValueError", "TypeError"),
            ("layers.0.weight has no gradient", "layers.1.weight has no gradient"),
            ("conv1 is dead", "conv2 is dead"),
        ],
    )
    def test_another_failure_has_another_one(self, one, two):
        """The type and the names in the message tell failures apart."""
        assert fingerprint(one, one, "a.py::f") != fingerprint(two, two, "a.py::f")
        assert fingerprint("E", "m", "a.py::f") != fingerprint("E", "m", "a.py::g")


class TestObserving:
    def test_findings_of_checks_and_umbrellas_are_overheard(self):
        """Asked directly or through an umbrella, each finding is there once."""

        @umbrella
        def check_all(run):
            return diagnose_findings("run", [check_it(run), check_it(run)])

        with observing() as seen:
            check_it({})
            check_all({})
        assert len(seen.asked) == 2
        assert len(seen.findings) == 3

    def test_recordings_are_overheard_in_the_order_they_ended(self):
        """Nested observers each hear what ended in their own block."""
        with observing() as outer:
            note_trace("a")
            with observing() as inner:
                note_trace("b")
            note_trace("c")
        note_trace("d")
        assert (outer.traces, inner.traces) == (["a", "b", "c"], ["b"])

    def test_nobody_listens_after_an_error(self):
        """The block may raise."""
        before = list(trials._recorded)
        with pytest.raises(RuntimeError):
            with observing():
                raise RuntimeError
        assert trials._recorded == before


def test_what_cannot_be_encoded_or_said_still_has_a_fingerprint():
    """A lone surrogate, as in a file's name, and an error whose `__str__` raises are no reason to raise."""

    class Mute(Exception):
        def __str__(self):
            raise ValueError

    assert fingerprint("E", "a\udcffb", "f") != fingerprint("E", "ab", "f")
    assert words_of(Mute()) == ""
    assert words_of(KeyError("a")) == "'a'"
