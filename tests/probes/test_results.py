"""What a training returned, compared bit for bit; what a clock decided is left out."""

import numpy as np
import pytest
import torch

from pytest_mltd.probes.results import compared, first_difference, leaves_of


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


@pytest.mark.parametrize(
    "name",
    [
        "per_sample_loss",
        "sentiment_accuracy",
        "validated_auc",
        "update_norm",
        "direction_error",
        "profile_score",
        "estimated_lift",
        "candidate_count",
        "val_loss_at_time_10",
        "dataset_time_split.auc",
        "rapidity",
        "ghosting",
        "secondsHandLoss",
        "accuracy_over_time",
        "s",
    ],
)
def test_a_metric_whose_name_only_contains_such_a_word_is_compared(name):
    """Whole words decide, and a metric stays one whatever else its name says."""
    assert differ({name: 1.0}, {name: 2.0}) == name


@pytest.mark.parametrize(
    "name",
    [
        "trainTime",
        "epoch.seconds",
        "wall-time",
        "samples_per_s",
        "out_dir",
        "fileName",
        "gradient_time",
        "time_to_best_loss",
        "fit_s[0]",
    ],
)
def test_whole_words_are_found_in_every_spelling(name):
    """Snake, camel, dotted and dashed names fall into the same words."""
    assert differ({name: 1.0}, {name: 2.0}) is None


def test_times_are_not_counted_as_compared():
    """What is left out is not part of the number that a passing finding boasts of."""
    leaves = leaves_of({"loss": 1.0, "seconds": 2.0, "name": "x", "bare": 3.0})
    assert [leaf.path for leaf in compared(leaves, clocks=False)] == ["loss", "bare"]
    assert [leaf.path for leaf in compared(leaves, clocks=True)] == ["loss"]


def test_a_long_result_is_compared_to_its_end():
    """Beyond ten thousand values the rest is one digest: a difference in it is found, if not its place."""
    one = [0.0] * 12_000
    two = [*one[:-1], 1.0]
    assert differ(one, list(one)) is None
    assert differ(one, two) == "the values after the first 10,000"
    assert differ(one, one[:-1]) == "the values after the first 10,000"
    assert differ({"loss": one, "seconds": [1.0]}, {"loss": one, "seconds": [2.0]}) is None


def test_an_unnamed_number_counts_unless_the_program_reads_a_clock():
    """A bare duration beside a loss raises no alarm; a metric does in any case."""
    assert differ((0.5, 1.0), (0.5, 2.0)) == "[1]"
    assert differ((0.5, 1.0), (0.5, 2.0), clocks=True) is None
    assert differ({"val_loss": 1.0}, {"val_loss": 2.0}, clocks=True) == "val_loss"
