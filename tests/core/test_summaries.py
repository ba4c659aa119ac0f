"""A few numbers stand for a recorded run in the evidence."""

import math

import numpy as np
import pytest

from pytest_mltd.core.summaries import metrics_of
from pytest_mltd.core.traces import Trace


def run(losses, **more):
    n = len(losses)
    steps = {
        "optimizer": np.zeros(n, np.int32),
        "stream": np.zeros(n, np.int32),
        "loss": np.array(losses, float),
        "grad_norm_used": np.linspace(3, 1, n),
    }
    return Trace(steps={**steps, **more}, streams=("train.py:3",))


def test_the_end_of_the_loss_and_the_largest_gradient_stand_for_a_run():
    """The median of the last tenth, so that one batch does not decide."""
    assert metrics_of([run([*[2.0] * 18, 0.5, 0.7])]) == {"train/loss": pytest.approx(0.6), "train/grad_norm": 3.0}


def test_a_loss_that_became_nan_is_kept():
    """It is the news."""
    found = metrics_of([run([1.0, math.nan, math.nan], grad_norm_used=np.array([1, math.nan, math.nan]))])
    assert math.isnan(found["train/loss"])
    assert math.isnan(found["train/grad_norm"])


def test_the_stream_with_most_steps_counts():
    """A GAN's two losses are not mixed."""
    found = metrics_of([run([1.0, 9.0, 1.0, 9.0, 1.0], stream=np.array([0, 1, 0, 1, 0], np.int32))])
    assert found["train/loss"] == 1.0


def test_logged_numbers_come_under_their_names():
    """The last value of each."""
    assert metrics_of([Trace.from_scalars({"val/auc": [0.7, 0.9]})])["val/auc"] == 0.9


def test_several_runs_give_a_list_each():
    """As over seeds."""
    assert metrics_of([run([1.0]), run([2.0])])["train/loss"] == [1.0, 2.0]


def test_nothing_recorded_gives_nothing():
    """No run, or one without a step."""
    assert metrics_of([]) == metrics_of([Trace()]) == {}
