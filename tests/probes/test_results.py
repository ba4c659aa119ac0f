"""What a training returned, compared bit for bit; what a clock decided is left out."""

import numpy as np
import pytest
import torch

from pytest_mltd.probes.results import first_difference, leaves_of


def differ(one, two, *, clocks=False):
    found = first_difference(leaves_of(one), leaves_of(two), clocks=clocks)
    return None if found is None else found[0].path


@pytest.mark.parametrize(
    ("one", "two", "path"),
    [
        (0.1, 0.2, ""),
        ({"val": {"auc": 0.9}}, {"val": {"auc": 0.8}}, "val.auc"),
        ([1, (2, 3)], [1, (2, 4)], "[1][1]"),
        (0.0, -0.0, ""),
        (torch.ones(3), torch.tensor([1.0, 1.0, 1.0 + 1e-7]), ""),
        ({"w": np.zeros(2)}, {"w": np.array([0.0, -0.0])}, "w"),
        ([1.0], [1.0, 2.0], "the number of values"),
    ],
)
def test_the_first_difference_is_named(one, two, path):
    """Numbers, arrays and tensors in nested results are told apart to the last bit, by their place."""
    assert differ(one, two) == path
    assert differ(one, one) is None


def test_a_models_weights_are_compared():
    """A returned module is its parameters and buffers."""
    one, two = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    assert differ(one, two) == "state_dict.weight"
    two.load_state_dict(one.state_dict())
    assert differ(one, two) is None


def test_nan_agrees_with_itself():
    """The same NaN twice is the same result."""
    assert differ(float("nan"), float("nan")) is None


@pytest.mark.parametrize("name", ["seconds", "train_time", "took", "elapsed_s", "checkpoint_path", "pid"])
def test_what_is_named_like_a_time_or_place_is_not_compared(name):
    """Wall time and paths are never the same twice."""
    assert differ({name: 1.0}, {name: 2.0}) is None


def test_an_unnamed_number_counts_unless_the_program_reads_a_clock():
    """A bare duration beside a loss raises no alarm; a metric does in any case."""
    assert differ((0.5, 1.0), (0.5, 2.0)) == "[1]"
    assert differ((0.5, 1.0), (0.5, 2.0), clocks=True) is None
    assert differ({"val_loss": 1.0}, {"val_loss": 2.0}, clocks=True) == "val_loss"
