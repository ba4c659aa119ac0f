"""What a check accepts as a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_mltd.core.traces import Trace, as_trace


def test_a_trace_is_taken_as_it_is():
    """A trace is already what is wanted."""
    trace = Trace()
    assert as_trace(trace) is trace


def test_anything_with_a_trace_is_accepted():
    """A recording and a run both carry theirs under one name."""
    trace = Trace()
    assert as_trace(SimpleNamespace(trace=trace)) is trace


@pytest.mark.parametrize("path", ["runs/a.trace", Path("runs/a.trace")])
def test_a_path_is_refused_with_the_way_to_read_it(path):
    """The remedy can be pasted."""
    with pytest.raises(TypeError) as caught:
        as_trace(path)
    assert str(caught.value) == "run: 'runs/a.trace' is a path; read it first, with Trace.load('runs/a.trace')"


@pytest.mark.parametrize(
    ("wrong", "named"), [(None, "None"), ([1.0], "list"), (SimpleNamespace(trace=3), "SimpleNamespace")]
)
def test_what_is_no_run_is_refused_by_its_argument_name(wrong, named):
    """The message names the argument as the caller wrote it, and what to pass."""
    with pytest.raises(TypeError) as caught:
        as_trace(wrong, "first")
    assert str(caught.value) == (
        f"first: a recorded run is needed (what mltd.record() or mltd.run() gave, or a Trace), not {named}"
    )
