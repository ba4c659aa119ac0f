"""Steps too short to learn anything, and steps too long to keep it."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.rates import (
    assert_no_oscillation,
    assert_no_rate_too_low,
    check_oscillation,
    check_rate_too_low,
)
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Fact, OptimizerInfo, Trace

ENTROPY = Fact(kind="targets", who="train.py:12", details={"loss": "cross_entropy", "entropy": 2.302})


def creeping(made, lr=1e-5):
    """Return a run of ordinary gradients whose steps are far too short."""
    run = made()
    run.loss = 2.31 - 1e-5 * np.arange(200) + 0.01 * np.random.default_rng(0).standard_normal(200)
    run.loss[0] = 2.31
    run.lr[:] = lr
    run.kept["facts"] = (ENTROPY,)
    return run


def test_steps_that_cannot_reach_anything_are_too_short(made):
    """What all steps together could take off the loss, and the whole message."""
    finding = check_rate_too_low(creeping(made).trace())
    assert str(finding) == (
        "losses.rate_too_low: the learning rate of SGD is too low (lr 1e-05): all 200 steps together can take "
        "0.0003811 of its "
        "first level off the loss (min_reach=0.1)\n"
        "\n"
        "    median over the run   value\n"
        "  > length of a step      3.565e-06\n"
        "    norm of the gradient  0.3565\n"
        "    norm of the weights   5.701\n"
        "    loss at the start     2.31\n"
        "    loss at the end       2.304\n"
        "\n"
        "    The gradients are of a usual size; a step cannot take more off the loss than its length times the "
        "gradient.\n"
        "    next: try lr=0.02: early updates near 0.001 of the weights are usual, here they are 6.254e-07"
    )


def test_the_same_steps_at_a_usual_rate_are_long_enough(made):
    """A net that does not learn with them has another fault."""
    assert check_rate_too_low(creeping(made, lr=0.1).trace()).ok
    assert_no_rate_too_low(made().trace())


def clipped(made, times):
    run = creeping(made, lr=0.1)
    run.loss -= 0.1 * np.arange(200) / 200  # a little over 3% better than a constant answer
    run.used = run.grad / times
    run.order = [("forward", "zero_grad", "backward", "clip", "step")] * 200
    run.values["clip"] = 1e-3
    return check_rate_too_low(run.trace())


def test_a_clip_limit_that_cuts_nearly_all_is_the_reason(made):
    """The steps are held against the gradients as they were before."""
    finding = clipped(made, 500)
    assert finding.headline == (
        "the clip limit 0.001 is too small (train.py:10): gradients of 0.3565 are clipped in every step of SGD, 500 times, and "
        "all 200 steps together can take 0.007621 of its first level off the loss (min_reach=0.1)"
    )
    assert finding.next_step == "clip at the norm that gradients usually have, 0.4, or above"


def test_a_clip_limit_that_leaves_a_good_part_is_not(made):
    """Gradients cut to a twentieth are a matter of taste."""
    assert clipped(made, 20).ok


def test_a_loss_that_came_down_has_been_reached(made):
    """Whatever the sum says: a steep valley needs short steps."""
    run = made()
    run.lr[:] = 1e-6
    run.kept["facts"] = (ENTROPY,)
    assert check_rate_too_low(run.trace()).ok


def test_gradients_that_vanish_are_another_question(made):
    """Nothing could be reached with them at ten times the rate either."""
    run = creeping(made)
    run.grad *= 1e-4
    assert check_rate_too_low(run.trace()).ok


def test_short_and_cut_runs_are_not_asked_of_their_rate(made):
    """Warm-up is short steps."""
    run = creeping(made)
    run.kept["ended"] = "cut"
    finding = check_rate_too_low(run.trace())
    assert not finding.asked
    assert "200 of at least 500 steps" in finding.headline


def test_scalars_alone_do_not_tell_the_rate(made):
    """No length of a step is in a log."""
    assert not check_rate_too_low(Trace.from_scalars({"loss": creeping(made).loss, "lr": np.full(200, 1e-5)})).asked


def test_an_allowed_optimizer_may_creep(made):
    """By its label."""
    assert check_rate_too_low(creeping(made).trace(), allow={"SGD": "a smoke test"}).ok


# -- oscillation


def swinging(made, times, length=20, lr=2.0):
    """Return a run whose loss falls and is high again some times."""
    run = made()
    swing = np.where(np.arange(200) // (length // 2) % 2 == 0, 2.2, 0.3)
    run.loss = np.where(np.arange(200) < times * length + length // 2, swing, 0.3)
    run.lr[:] = lr
    return run


def test_a_loss_that_loses_what_it_gained_again_and_again_oscillates(made):
    """The first relapse, how many, and the whole message."""
    finding = check_oscillation(swinging(made, 6).trace())
    assert finding.step == 20
    assert str(finding) == (
        "losses.oscillation: the loss of 'train.py:12' oscillates: from step 20 on it lost most of what it had "
        "gained 6 times "
        "(max_relapses=3), and ends at 0.3 after 2.2 at the start\n"
        "\n"
        "    low at step  loss  high again at step  loss there\n"
        "  > 10           0.3   20                  2.2\n"
        "    30           0.3   40                  2.2\n"
        "    50           0.3   60                  2.2\n"
        "    70           0.3   80                  2.2\n"
        "    90           0.3   100                 2.2\n"
        "\n"
        "    Steps this long jump over the minimum: the learning rate is too high. A usual step changes the "
        "weights by 0.08839 of "
        "their norm; 0.001 is healthy.\n"
        "    next: try lr=0.2; if it still swings, look for batches of two kinds that take turns"
    )


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_few_relapses_are_tasks_or_restarts(made, times):
    """Each new task begins high once."""
    assert_no_oscillation(swinging(made, times).trace())


def test_relapses_under_short_steps_are_other_data(made):
    """A step of a thousandth of the weights throws nothing over."""
    assert check_oscillation(swinging(made, 6, lr=0.01).trace()).ok


def test_noise_between_batches_is_no_relapse(made):
    """The median of five steps has to move."""
    run = made()
    run.loss = np.abs(0.8 + 0.5 * np.random.default_rng(0).standard_normal(200))
    run.loss[0] = 2.2
    run.lr[:] = 2.0
    assert check_oscillation(run.trace()).ok


def test_a_log_needs_twice_the_relapses(made):
    """Without the length of the steps."""
    assert check_oscillation(Trace.from_scalars({"loss": swinging(made, 6).loss})).ok
    with pytest.raises(CheckFailed, match="max_logged_relapses=6"):
        assert_no_oscillation(Trace.from_scalars({"train/loss": swinging(made, 8).loss}))


def test_two_optimizers_are_not_asked(made):
    """One net after the other begins high each time."""
    run = swinging(made, 6)
    run.owner[100:] = 1
    run.optimizers = (*run.optimizers, OptimizerInfo(name="Adam"))
    assert not check_oscillation(run.trace()).asked


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (check_rate_too_low, "min_reach"),
        (check_rate_too_low, "max_gain"),
        (check_oscillation, "max_relapses"),
        (check_oscillation, "max_logged_relapses"),
        (check_oscillation, "min_update"),
    ],
)
def test_limits_that_are_not_positive_are_refused(made, check, name):
    """By name."""
    with pytest.raises(ValueError, match=name):
        check(made().trace(), **{name: 0})
