"""The first step that is not finite, where a log is all there is: losses and norms at some steps only."""

import dataclasses

import numpy as np

from pytest_mltd.checks.runs.gradients import check_nonfinite
from pytest_mltd.core.traces import Fact, Trace


def logged(norms, losses=None):
    """Return the trace of a log with one line each tenth step."""
    at = np.arange(len(norms)) * 10
    norms = np.array(norms, dtype=float)
    losses = np.linspace(2, 1, len(norms)) if losses is None else np.array(losses, dtype=float)
    trace = Trace.from_scalars({"loss": (at, losses), "grad_norm": (at, norms)})
    nonfinite = np.zeros(trace.n_steps, np.int64)
    nonfinite[at[~np.isfinite(norms)]] = 1
    return dataclasses.replace(trace, steps={**trace.steps, "nonfinite": nonfinite})


def test_norms_that_stay_bad_in_a_log_are_found():
    """Some trainers log a loss of 0 beside a norm of NaN; the norms tell."""
    finding = check_nonfinite(logged([1.0, 1.2, np.nan, np.nan, np.nan], [2.0, 1.5, 0.0, 0.0, 0.0]))
    assert str(finding) == (
        "gradients.nonfinite: the gradients are not finite from step 20 on, while the loss there is 0\n"
        "\n"
        "    step  loss  gradient norm\n"
        "    0     2     1\n"
        "    10    1.5   1.2\n"
        "  > 20    0     NaN\n"
        "\n"
        "    A finite loss has a gradient that is not: sqrt or norm at zero, a division or log behind torch.where, "
        "an overflow.\n"
        "    next: mltd.locate_nonfinite(train), or of the script's path, runs it again and names the operation, its line and "
        "what it was given"
    )


def test_a_lone_infinite_norm_in_a_log_is_a_skipped_step():
    """A GradScaler finds its scale by infinite norms."""
    assert check_nonfinite(logged([np.inf, 1.0, 1.2, 1.1, np.inf, 1.0])).ok


def test_a_loss_that_comes_back_in_a_log_did_not_reach_the_weights():
    """A batch with a NaN that the program left out is logged all the same."""
    assert check_nonfinite(logged([1.0] * 8, [2.0, 1.8, np.nan, 1.6, 1.5, 1.4, np.nan, 1.2])).ok


def test_a_loss_that_stays_nan_in_a_log_shows_the_lines_before():
    """The table has rows of the log, none of the steps between two of them."""
    finding = check_nonfinite(logged([1.0] * 5, [2.0, 1.8, 1.6, np.nan, np.nan]))
    assert finding.step == 30
    assert finding.headline.startswith("the loss is NaN from step 30 on in")
    assert [row[0] for row in finding.table.rows] == [0, 10, 20, 30]


def test_what_the_recorder_saw_live_is_told():
    """The operation with the numbers that it was given, or the data."""
    trace = Trace.from_scalars({"loss": [1.0, 0.9, 0.8, np.nan, np.nan]})
    fact = Fact(
        kind="nonfinite", step=3, details={"operation": "LogSoftmax", "dtype": "float32", "low": 0.0, "high": 0.98}
    )
    finding = check_nonfinite(dataclasses.replace(trace, facts=(fact,)))
    assert finding.culprit == "log_softmax"
    assert ", made by 'log_softmax' of numbers from 0 to 0.98; the last finite one" in finding.headline
    held = dataclasses.replace(fact, details={"operation": "data"})
    finding = check_nonfinite(dataclasses.replace(trace, facts=(held,)))
    assert finding.culprit == "data"
    assert ", which the data held already" in finding.headline


def test_a_log_shows_only_what_was_logged():
    """A column of NaN beside the loss reads as if the gradients had gone first."""
    log = Trace.from_scalars({"loss": [0.9, 0.8, 0.7, float("nan"), float("nan")]})
    finding = check_nonfinite(log)
    assert finding.failed
    assert finding.table.columns == ("step", "loss")


def test_a_single_number_is_no_range(made):
    """ "numbers from -0.0066 to -0.0066" makes its reader look for the difference."""
    run = made()
    run.loss[7:] = np.nan
    born = Fact(kind="nonfinite", step=7, details={"operation": "LogBackward0", "low": -0.0066, "high": -0.0066})
    headline = check_nonfinite(dataclasses.replace(run.trace(), facts=(born,))).headline
    assert "made by 'log' of -0.0066;" in headline
