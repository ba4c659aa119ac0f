"""Do the inputs tell the targets: too well, or not at all?"""

import numpy as np
import pytest
import torch

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.targets import (
    assert_no_targets_equal_inputs,
    assert_no_unlearnable_labels,
    check_targets_equal_inputs,
    check_unlearnable_labels,
)


@pytest.fixture
def table():
    """64 samples of five features, and a label that two of them decide."""
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] + x[:, 1] > 0).long()


def test_a_label_among_the_features_is_named(table):
    """Scaled or not, in single precision or not."""
    x, y = table
    leaky = torch.cat([x, 3 * y[:, None].float() - 1.5], 1)
    finding = check_targets_equal_inputs(leaky, y)
    assert finding.headline == (
        "column 5 of the inputs is the target itself, up to scale and offset, in all 64 samples (max_unexplained=1e-05)"
    )
    assert str(finding).endswith(
        "    The model is given what it is to predict.\n    next: take the column out of the features before they become inputs"
    )
    with pytest.raises(CheckFailed):
        assert_no_targets_equal_inputs(leaky.numpy(), y.float().numpy()[:, None])
    assert check_targets_equal_inputs(leaky, y, allow={"column 5": "an exercise"}).ok


def test_features_that_only_help_are_left_alone(table):
    """A strong feature, a straight line in all columns, and targets that say nothing."""
    x, y = table
    assert_no_targets_equal_inputs(x, x[:, 0] + 0.01 * x[:, 1])
    line = torch.arange(64.0)
    assert "straight line" in check_targets_equal_inputs(torch.stack([line, line + 1, line + 2], 1), line + 3).headline
    assert not check_targets_equal_inputs(x, torch.ones(64)).asked
    with pytest.raises(NotAsked):
        assert_no_targets_equal_inputs(x[:8], y[:8])


@pytest.mark.parametrize("permuted", [0, 1, 2])
def test_a_column_is_found_wherever_it_stands(table, permuted):
    """The order of rows and columns changes nothing."""
    x, y = table
    rng = np.random.default_rng(permuted)
    rows, columns = rng.permutation(64), rng.permutation(6)
    leaky = torch.cat([x, y[:, None].float()], 1)[rows][:, columns]
    assert check_targets_equal_inputs(leaky, y[rows]).culprit == f"column {columns.tolist().index(5)}"


def test_labels_of_another_order_are_found(table):
    """Samples that look alike agree as rarely as any; the right order agrees."""
    x, y = table
    shuffled = y[torch.randperm(64, generator=torch.Generator().manual_seed(3))]
    finding = check_unlearnable_labels(x, shuffled)
    assert finding.failed
    assert finding.headline.startswith(
        "nothing in the inputs seems to tell the labels: the nearest other sample has the"
    )
    assert finding.headline.endswith("(min_gain=2)")
    assert finding.evidence == "inference"
    assert check_unlearnable_labels(x, shuffled, allow={"labels": "noise on purpose"}).ok
    with pytest.raises(CheckFailed):
        assert_no_unlearnable_labels(x.reshape(64, 1, 5), shuffled)
    assert_no_unlearnable_labels(x, y)


def test_what_has_no_classes_is_not_asked(table):
    """Numbers, one label for all, too few samples; a single number is misuse."""
    x, y = table
    assert not check_unlearnable_labels(x, x[:, 0]).asked
    assert not check_unlearnable_labels(x, y * 0).asked
    assert not check_unlearnable_labels(x[:20], y[:20]).asked
    with pytest.raises(TypeError, match=r"^targets: one row for each sample is needed, not a single number$"):
        check_unlearnable_labels(x, 3)
    with pytest.raises(TypeError, match=r"^inputs: an array of numbers is needed, not list \("):
        check_targets_equal_inputs(["a"], y)
