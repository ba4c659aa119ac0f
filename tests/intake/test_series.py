import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mltd.intake import series
from pytest_mltd.intake.series import Scalars, TooMuch, settled


def _settled(*pairs):
    steps, values = np.array([p[0] for p in pairs]), np.array([float(p[1]) for p in pairs])
    at, kept, back = settled(steps.astype(np.int64), values)
    return list(zip(at.tolist(), kept.tolist(), strict=True)), back


def test_a_resumed_run_counts_as_it_went_on():
    """Steps 2 and 3 were written twice; the abandoned step 4 is gone although nothing was written over it."""
    written = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 99), (2, 30), (3, 40)]
    assert _settled(*written) == ([(0, 1), (1, 2), (2, 30), (3, 40)], 1)


def test_a_step_written_twice_in_a_row_counts_once():
    """The later of two values of one step stays."""
    assert _settled((0, 1), (1, 2), (1, 3)) == ([(0, 1), (1, 3)], 0)


def test_steps_that_go_back_all_the_time_are_sorted():
    """Several writers at once are no restarts: nothing is thrown away but doubles."""
    written = [(i ^ 1, i) for i in range(60)]
    kept, back = _settled(*written)
    assert [at for at, _ in kept] == list(range(60))
    assert back == 0


def test_nothing_settles_to_nothing():
    """An empty curve stays one."""
    assert _settled() == ([], 0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=40))
def test_settled_steps_ascend_and_the_last_value_written_stays(pairs):
    """Whatever was written: one value a step, ascending, and the very last is kept where restarts are few."""
    kept, _ = _settled(*pairs)
    steps = [at for at, _ in kept]
    assert steps == sorted(set(steps))
    assert set(kept) <= {(a, float(b)) for a, b in pairs}
    last = {at: float(value) for at, value in pairs}
    assert all(value == last[at] for at, value in kept)


def test_too_many_names_or_numbers_are_refused(monkeypatch):
    """A log without bounds costs no memory without bounds."""
    monkeypatch.setattr(series, "MAX_NAMES", 2)
    held = Scalars()
    held.add("a", 0, 1.0)
    held.add("b", 0, 1.0)
    with pytest.raises(TooMuch, match="more than 2 names"):
        held.add("c", 0, 1.0)
    monkeypatch.setattr(series, "MAX_NUMBERS", 2)
    with pytest.raises(TooMuch, match="more than 2 numbers"):
        held.add("a", 1, 1.0)
