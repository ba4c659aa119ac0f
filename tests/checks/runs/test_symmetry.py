"""Units that are all the same: layers that were filled with one number, and act as one unit."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.symmetry import assert_no_identical_units, check_identical_units
from pytest_mltd.core.findings import NotAsked


def looked(made, distance=0.0, steps=200):
    """Return a run whose second layer, of 16 inputs and weights of 0.25, spreads four times as much as the first."""
    run = made(steps)
    at = run.trace().outputs["step"]
    spread = np.full((len(at), 3), 0.5)
    spread[:, 2] = 2.0
    spread[-1, 2] *= 1 + distance
    run.kept["outputs"] = {"step": at, "std": spread, "rows": np.full((len(at), 3), 32)}
    return run.trace()


def test_units_before_a_layer_that_spreads_as_if_they_were_one_are_identical(made):
    """Which, and the whole message."""
    finding = check_identical_units(looked(made))
    assert finding.culprit == "fc1"
    assert str(finding) == (
        "activations.identical_units: all 16 hidden units of 'fc1' are identical, in all 24 looks: 'fc2' spreads as if they "
        "were one, to 0 (min_difference=0.0001)\n"
        "\n"
        "    units of  units  into  distance from one unit\n"
        "  > fc1       16     fc2   0\n"
        "\n"
        "    The initialisation is symmetric: weights filled with one constant get the same gradients, so the symmetry is not "
        "broken, and each such layer acts as one unit.\n"
        "    next: initialise the weights at random (kaiming or xavier); only biases may start with one constant"
    )


def test_one_look_at_which_units_differ_clears_them(made):
    """A coincidence does not last, and dropout or noise breaks the symmetry."""
    assert_no_identical_units(looked(made, 0.01))


def test_a_net_that_was_hardly_looked_at_is_not_asked(made):
    """Three looks are no proof, and neither are no spreads."""
    assert not check_identical_units(looked(made, steps=3)).asked
    with pytest.raises(NotAsked, match="4 times"):
        assert_no_identical_units(made().trace())


def test_a_net_in_torch_filled_with_one_number_is_named(recorded):
    """And is not where the weights are drawn at random, or only the biases are filled."""
    assert check_identical_units(recorded(fill=True)).culprit == "1"
    assert check_identical_units(recorded(fill=False)).ok


@pytest.fixture
def recorded():
    """Return a function that trains a small net while recording."""
    torch = pytest.importorskip("torch")
    mltd = pytest.importorskip("pytest_mltd")

    def train(fill):
        torch.manual_seed(0)
        layers = [
            torch.nn.Linear(5, 12),
            torch.nn.ReLU(),
            torch.nn.Linear(12, 12),
            torch.nn.Tanh(),
            torch.nn.Linear(12, 1),
        ]
        for layer in layers[::2]:
            torch.nn.init.constant_(layer.bias, 0.1)
            if fill:
                torch.nn.init.constant_(layer.weight, 0.1)
        net = torch.nn.Sequential(*layers)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        with mltd.record() as run:
            for _ in range(40):
                x = torch.randn(100, 5)
                optimizer.zero_grad()
                (net(x).squeeze(1) - x[:, 0]).square().mean().backward()
                optimizer.step()
        return run

    return train


@pytest.mark.parametrize("arguments", [{"min_difference": 0}, {"min_looks": 0}])
def test_limits_that_make_no_sense_are_refused(made, arguments):
    """By name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        check_identical_units(made().trace(), **arguments)
