"""Two runs whose bits differ anyway: rounding, or another cause."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.drift import assert_no_numerical_drift, check_numerical_drift
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Trace


def pair(made, apart):
    """Return two traces whose losses are apart by these relative differences, step by step."""
    one, two = made(), made()
    two.loss = one.loss * (1 + np.asarray(apart))
    return one.trace(), two.trace()


def rounding(first=1e-8, growth=1.1, most=0.3):
    """Differences that begin small and grow from step to step."""
    return np.minimum(first * growth ** np.arange(200), most)


def test_drift_that_rounding_explains(made):
    """It begins at 1e-8 and ends at 0.3, without a jump."""
    finding = check_numerical_drift(*pair(made, rounding()))
    assert finding.ok
    assert finding.headline.startswith("the runs drift apart as rounding does, without a jump: by up to ")
    assert finding.looked_at == "loss and gradient norm at 200 steps"


def test_a_jump_that_rounding_does_not_explain(made):
    """The step at which it begins, both numbers, and how near they were before."""
    apart = rounding(growth=1.0)
    apart[40:] = 0.05
    finding = check_numerical_drift(*pair(made, apart))
    assert str(finding) == (
        "runs.numerical_drift: the runs drift apart at step 40 by more than rounding explains: loss 0.88415 and 0.92836, 0.048 "
        "apart (rtol=0.001, max_jump=1000); before it they were within 1e-08 (train.py:12)\n"
        "\n"
        "    step  loss, run 1  loss, run 2  relative difference\n"
        "    37    0.9698       0.9698       1e-08\n"
        "    38    0.9665       0.9665       1e-08\n"
        "    39    0.9597       0.9597       1e-08\n"
        "  > 40    0.8842       0.9284       0.04762\n"
        "    41    0.9196       0.9656       0.04762\n"
        "    42    0.8968       0.9416       0.04762\n"
        "\n"
        "    Rounding begins small and grows from step to step; this did not.\n"
        "    next: look at what is new at that step: the batch, the learning rate, a schedule, the mode of the model"
    )
    assert (finding.step, finding.culprit) == (40, "loss")


def test_a_difference_at_the_first_step(made):
    """Other weights, another batch, another loss function: not rounding."""
    finding = check_numerical_drift(*pair(made, np.full(200, 0.02)))
    assert finding.step == 0
    assert "0.02 apart (rtol=0.001, max_jump=1000); and that is the first step" in finding.headline
    assert check_numerical_drift(*pair(made, np.full(200, 0.02)), rtol=0.03).ok


def test_a_loss_that_is_not_finite_in_one_run_only(made):
    """No rounding makes that."""
    one, two = made(), made()
    two.loss[60:] = np.nan
    assert check_numerical_drift(one.trace(), two.trace()).step == 60


def test_noise_of_a_loss_near_zero(made):
    """It is held against the early level, not against itself."""
    one, two = made(), made()
    one.loss[100:], two.loss[100:] = 1e-9, 3e-9
    assert check_numerical_drift(one.trace(), two.trace()).ok


def test_what_else_differs_at_that_step_is_said(made):
    """The learning rate, or the batch."""
    one, two = made(), made()
    two.loss = one.loss * np.where(np.arange(200) < 40, 1, 1.05)
    two.lr[40:] = 0.01
    assert check_numerical_drift(one.trace(), two.trace()).shows == "The learning rates differ there: 0.1 and 0.01."
    two.lr[:] = 0.1
    traces = []
    for run, digest in ((one, 1), (two, 2)):
        run.order = [("batch", "forward", "backward", "step")] * 200
        trace = run.trace()
        column = np.where(trace.of("batch"), digest, 0).astype(np.uint64)
        traces.append(dataclasses.replace(trace, calls={**trace.calls, "digest": column}))
    assert check_numerical_drift(*traces).shows == "The batches of that step differ."
    assert check_numerical_drift(traces[0], dataclasses.replace(traces[1], calls=traces[0].calls)).shows == (
        "The batches of that step are the same."
    )


def test_runs_that_are_equal(made):
    """They are said to be equal bit for bit."""
    finding = check_numerical_drift(made().trace(), made().trace())
    assert finding.headline == "runs are equal, bit for bit, in 800 events (rtol=0.001)"


def test_settings_that_change_bits_do_not_forbid_the_question(made):
    """Two thread counts are what it is for."""
    one, two = pair(made, rounding())
    two = dataclasses.replace(two, settings={"threads": 2})
    assert check_numerical_drift(dataclasses.replace(one, settings={"threads": 1}), two).ok


def test_two_models(made):
    """There is no drift between different models."""
    one, two = made(), made()
    two.parameters = (dataclasses.replace(two.parameters[0], shape=(8, 16)), *two.parameters[1:])
    finding = check_numerical_drift(one.trace(), two.trace())
    assert not finding.asked
    assert finding.headline.startswith("runs train different parameters")


def test_a_drift_may_be_allowed_and_the_twin_raises(made):
    """The place is the number that drifts."""
    runs = pair(made, np.full(200, 0.02))
    assert check_numerical_drift(*runs, allow={"loss": "another reduction"}).ok
    with pytest.raises(CheckFailed, match="more than rounding explains"):
        assert_no_numerical_drift(*runs)


def test_misuse_and_what_cannot_be_asked(made):
    """Limits out of range, a run without steps."""
    run = made().trace()
    with pytest.raises(ValueError, match="^rtol: "):
        check_numerical_drift(run, run, rtol=0)
    with pytest.raises(ValueError, match="^max_jump: "):
        check_numerical_drift(run, run, max_jump=1)
    assert check_numerical_drift(run, Trace()).headline.startswith("the second run: nothing was trained")
