"""Rows on their way into the file."""

import io

import numpy as np

from pytest_mltd.core.traces import NOT_TAKEN, Parameter
from pytest_mltd.recording.naming import Names
from pytest_mltd.recording.spool import Spool


def spool_of(*names):
    known = Names()
    known.parameters += [Parameter(name=n) for n in names]
    return Spool(io.BytesIO(), known)


def step(spool, loss=1.0):
    spool.rows["steps"].append((0, 0, loss, 1, 0.1, 0.1, 1.0, 1.0, 0, 1.0, 0, 1))


def test_rows_become_columns_in_the_order_of_the_schema():
    """A wide cell is indexes and values; what it does not name was not looked at."""
    spool = spool_of("a", "b", "c")
    step(spool, 2.5)
    spool.rows["parameter_norms"].append((0, ([0, 2], [1.5, 2.5]), None))
    spool.flush()
    trace = spool.read()
    assert trace.steps["loss"].tolist() == [2.5]
    assert trace.parameter_norms["grad"].tolist() == [[1.5, NOT_TAKEN, 2.5]]
    assert trace.parameter_norms["grad_used"].tolist() == [[NOT_TAKEN] * 3]


def test_only_rows_up_to_the_marks_are_written():
    """Rows whose numbers are still on a device wait."""
    spool = spool_of()
    step(spool, 1.0)
    marks = spool.marks()
    step(spool, 2.0)
    spool.flush(marks)
    assert spool.read().steps["loss"].tolist() == [1.0]
    spool.flush()
    assert spool.read().steps["loss"].tolist() == [1.0, 2.0]


def test_a_row_that_does_not_fit_costs_its_table_and_is_noted():
    """A defect of ours in one table leaves the others."""
    spool = spool_of("a")
    step(spool)
    spool.rows["parameter_norms"].append((0, ([0], [1.0, 2.0]), None))
    spool.flush()
    trace = spool.read()
    assert trace.n_steps == 1
    assert len(trace.parameter_norms["step"]) == 0
    assert trace.notes[0] == "rows of 'parameter_norms' were lost: ValueError"


def test_names_that_changed_after_they_were_written_are_corrected():
    """The file has the last name."""
    spool = spool_of("weight")
    spool.flush()
    spool.names.parameters[0] = Parameter(name="G.weight")
    spool.names.changed.add(("parameters", 0))
    spool.flush()
    assert [p.name for p in spool.read().parameters] == ["G.weight"]


def test_norms_beyond_float32_are_kept_as_infinite_without_a_warning():
    """The column is float32; a norm of 1e300 does not fit."""
    spool = spool_of("a")
    spool.rows["parameter_norms"].append((0, ([0], [1e300]), None))
    spool.flush()
    assert np.isinf(spool.read().parameter_norms["grad"][0, 0])
