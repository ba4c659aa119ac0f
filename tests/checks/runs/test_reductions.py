"""A sum over the rows, with a learning rate that was meant for their mean."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.reductions import assert_no_summed_loss, check_summed_loss
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Fact, OptimizerInfo, Trace

SITE = "train.py:12"
SUM = {"loss": "cross_entropy", "looks": 8, "alone": True, "reduction": "sum", "factor": 1.0, "rows": 64, "classes": 10}


@pytest.fixture
def failing(made):
    """Return a run whose loss rises from its first steps on, and whose first updates are as large as the weights."""
    run = made()
    run.loss = np.geomspace(100, 1e5, 200)
    run.lr = np.full(200, 10.0)
    run.kept["facts"] = (Fact(kind="term", who=SITE, details=SUM),)
    return run


def test_a_sum_whose_steps_are_too_large(failing):
    """Rows, updates and the loss that follows."""
    assert str(check_summed_loss(failing.trace())) == (
        "objective.summed_loss: the loss of 'train.py:12' is a sum over 64 rows (cross_entropy), 64 times its mean: the first "
        "updates of SGD are 1.385 of the weights (max_update=0.1)\n"
        "\n"
        "    step  loss\n"
        "  > 0     100\n"
        "    1     103.5\n"
        "    2     107.2\n"
        "    3     111\n"
        "    4     114.9\n"
        "\n"
        "    The loss rises or overflows from these steps on: a learning rate that suits a mean is too high for the sum.\n"
        "    next: use the mean (reduction='mean'), or divide the learning rate by 64"
    )
    with pytest.raises(CheckFailed):
        assert_no_summed_loss(failing.trace())


def test_a_sum_that_overflows_fails_too(failing):
    """It ends in NaN."""
    failing.loss = np.concatenate([np.full(100, 5.0), np.full(100, np.nan)])
    assert check_summed_loss(failing.trace()).failed


def test_a_sum_that_overthrows_the_weights_and_recovers_a_little_fails_too(failing):
    """The loss ends a tenth below its start, and was pushed far above it."""
    failing.loss = np.concatenate([np.geomspace(10, 1e4, 5), np.full(195, 9.0)])
    assert check_summed_loss(failing.trace()).failed


def test_a_sum_that_trains_passes(failing, made):
    """However large its first steps."""
    failing.loss = made().loss
    assert check_summed_loss(failing.trace()).ok


def test_a_sum_with_small_steps_is_not_the_cause(failing):
    """Something else makes the loss rise."""
    failing.lr = np.full(200, 0.01)
    assert check_summed_loss(failing.trace()).ok


def accumulated(failing, factor):
    failing.kept["facts"] = (Fact(kind="term", who=SITE, details={**SUM, "reduction": "mean", "factor": factor}),)
    failing.kept["losses"] = {
        "step": np.repeat(np.arange(200), 16),
        "stream": np.zeros(3200, int),
        "value": np.ones(3200),
    }
    failing.backwards[:] = 16
    return check_summed_loss(failing.trace())


def test_means_that_are_accumulated_and_not_divided_are_a_sum(failing):
    """Sixteen backwards for each step, each of a whole mean."""
    finding = accumulated(failing, 1.0)
    assert finding.headline == (
        "the loss of 'train.py:12' is accumulated over 16 backwards for each step, and not divided by their number: the first "
        "updates of SGD are 1.385 of the weights (max_update=0.1)"
    )
    assert finding.next_step == ("divide the loss by their number before backward, or divide the learning rate by 16")


def test_means_that_are_divided_are_no_sum(failing):
    """loss / 16."""
    assert not accumulated(failing, 1 / 16).failed


@pytest.mark.parametrize("details", [{"reduction": "mean"}, {"factor": 1 / 64}, {"factor": None}, {"rows": 4}])
def test_what_is_no_sum_is_not_asked(failing, details):
    """A mean, a sum that was divided, an unknown factor, few rows."""
    failing.kept["facts"] = (Fact(kind="term", who=SITE, details={**SUM, **details}),)
    assert check_summed_loss(failing.trace()).headline == (
        "no loss that is a sum over rows, or over backwards, was seen in the graphs of the losses"
    )


def test_adam_does_not_feel_the_difference(failing):
    """Its steps have one size."""
    failing.optimizers = (OptimizerInfo(name="AdamW", parameters=4),)
    assert check_summed_loss(failing.trace()).headline == "AdamW takes steps of the same size for a sum and a mean"


def test_a_stream_may_be_allowed(failing):
    """By the line of backward."""
    finding = check_summed_loss(failing.trace(), allow={SITE: "a study of rates"})
    assert finding.ok
    assert finding.allowed == ((SITE, "a study of rates"),)


def test_misuse_and_nothing_to_ask(failing):
    """A ratio above 0; a run with steps."""
    with pytest.raises(ValueError, match=r"^max_update: "):
        check_summed_loss(failing.trace(), max_update=0)
    assert not check_summed_loss(Trace()).asked
