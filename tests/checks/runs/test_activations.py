"""Units that are off, units at their limits, spread that is lost in depth."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.activations import (
    assert_no_dead_units,
    assert_no_saturation,
    assert_no_spread,
    check_dead_units,
    check_saturation,
    check_spread,
)
from pytest_mltd.core.findings import NotAsked
from pytest_mltd.core.traces import Fact, Module

STUCK = np.full(200, 2.3)


def relu(who, silent, units=64, rows=32):
    """Return what a recording tells of the ReLU behind a layer."""
    details = {"units": units, "silent": silent, "always_silent": min(silent), "looks": len(silent), "rows": rows}
    return Fact(kind="relu", who=who, details=details)


def looked(made, *facts, loss=STUCK):
    """Return the trace of a made run with these facts."""
    run = made()
    run.loss = loss
    run.kept["facts"] = facts
    return run.trace()


# -- dead units


def test_units_that_are_all_off_are_dead(made):
    """The layer, how many, since when, and the whole message."""
    finding = check_dead_units(looked(made, relu("fc1", [64] * 6), relu("fc2", [3] * 6)))
    assert str(finding) == (
        "activations.dead_units: 100% of the units of 'fc1' are dead: the ReLU behind it is zero for every sample "
        "(max_dead=0.9), "
        "while the loss is still high\n"
        "\n"
        "    layer  units  dead, first look  dead, last look  rows looked at\n"
        "  > fc1    64     64                64               32\n"
        "\n"
        "    A hidden unit whose activation is zero for all samples has zero gradients: it cannot come back.\n"
        "    next: look at the initial biases and weights of that layer: they are off from the first step on"
    )


def test_units_that_died_on_the_way_were_thrown_there(made):
    """The next step is another one."""
    finding = check_dead_units(looked(made, relu("fc1", [2, 5, 64, 64, 64, 64])))
    assert finding.failed
    assert "learning rate too high" in finding.next_step


def test_half_of_the_units_off_is_usual(made):
    """Deep nets begin so."""
    assert_no_dead_units(looked(made, relu("fc1", [40] * 6)))


def test_a_net_that_learned_may_be_sparse(made):
    """Its loss came down."""
    assert check_dead_units(looked(made, relu("fc1", [64] * 6), loss=np.linspace(2.3, 1.5, 200))).ok


def test_few_rows_and_few_looks_are_not_asked(made):
    """A batch of two rows leaves most units off."""
    assert not check_dead_units(looked(made, relu("fc1", [64] * 6, rows=2))).asked
    assert not check_dead_units(looked(made, relu("fc1", [64] * 2))).asked


def test_a_net_without_a_relu_is_not_asked(made):
    """The assertion says so."""
    with pytest.raises(NotAsked, match="no ReLU was seen"):
        assert_no_dead_units(made().trace())


def test_an_allowed_layer_may_be_dead(made):
    """By its name."""
    assert check_dead_units(looked(made, relu("fc1", [64] * 6)), allow={"fc1": "an expert that is not used yet"}).ok


# -- saturation


def outputs(made, kinds, mean, std, loss=STUCK):
    """Return a run whose modules put out numbers of this mean and spread, in every sampled step."""
    run = made()
    run.loss = loss
    run.modules = (Module(name="net", kind="Net", root=True), *(Module(name=n, kind=k) for n, k in kinds))
    rows = len({*range(5), *range(0, run.n, 10)})
    mean, std = np.tile([9.0, *mean], (rows, 1)), np.tile([9.0, *std], (rows, 1))
    trace = run.trace()
    run.kept["outputs"] = {
        "step": trace.outputs["step"],
        "mean": mean,
        "std": std,
        "max": mean + std,
        "rows": np.full(mean.shape, 32),
    }
    return run.trace()


def test_a_tanh_at_its_limits_is_saturated(made):
    """The mean slope follows from mean and spread; the whole message."""
    finding = check_saturation(
        outputs(made, [("fc1", "Linear"), ("act", "Tanh"), ("gate", "Sigmoid")], (0, 0.1, 0.5), (40, 0.98, 0.2))
    )
    assert finding.amount == pytest.approx(1 - 0.1**2 - 0.98**2, abs=1e-6)
    assert str(finding) == (
        "activations.saturation: 'act', a tanh, is saturated: its mean slope is 0.03 of the steepest "
        "(min_slope=0.1), while the "
        "loss is still high\n"
        "\n"
        "    module  mean slope\n"
        "  > act     0.0296\n"
        "    gate    0.84\n"
        "\n"
        "    Nearly all its outputs are at the limits of the tanh, where it is flat: gradients vanish there.\n"
        "    next: scale the inputs, and the weights before it (initialisation), so that what enters lies mostly "
        "within ±2"
    )


def test_a_sigmoid_is_measured_from_its_middle(made):
    """Off is as flat as on."""
    assert check_saturation(outputs(made, [("gate", "Sigmoid")], (0.01,), (0.01,))).failed
    assert_no_saturation(outputs(made, [("gate", "Sigmoid")], (0.5,), (0.3,)))


def test_a_pretrained_net_that_learns_may_be_saturated(made):
    """Its loss came down."""
    assert check_saturation(outputs(made, [("act", "Tanh")], (0,), (0.99,), loss=np.linspace(2.3, 1, 200))).ok


def test_the_output_of_the_net_may_be_sure(made):
    """A classifier that ends in a sigmoid."""
    assert not check_saturation(outputs(made, [("last", "Sigmoid")], (9.0,), (9.0,))).asked


# -- spread


def layers(n, factor, last=1.0):
    """Return n linear layers whose spread grows by a factor each."""
    std = [factor**i for i in range(n)]
    std[-1] *= last
    return [(f"fc{i}", "Linear") for i in range(n)], [0.0] * n, std


def test_spread_that_grows_from_layer_to_layer_explodes(made):
    """The worst layer against the first, and the whole message."""
    finding = check_spread(outputs(made, *layers(6, 10.0)))
    assert str(finding) == (
        "activations.spread: the spread of the activations explodes with depth: at the start the outputs of 'fc5' "
        "spread 10,000 "
        "times more than those of 'fc1' (max_ratio=1000)\n"
        "\n"
        "    layer  spread of outputs\n"
        "    fc0    1\n"
        "    fc1    10\n"
        "    fc2    100\n"
        "    fc3    1000\n"
        "    fc4    10,000\n"
        "  > fc5    100,000\n"
        "\n"
        "    The weights are initialised too large: activations grow from layer to layer, and on their way back so do "
        "gradients: they explode.\n"
        "    next: initialise so that the spread is kept (kaiming or xavier), or normalise between the layers"
    )


def test_spread_that_shrinks_vanishes(made):
    """The other way, and in other words."""
    finding = check_spread(outputs(made, *layers(7, 0.1)))
    assert finding.culprit == "fc5"
    assert "10,000 times less" in finding.headline
    assert "initialised too small" in finding.shows


def test_a_small_last_layer_is_a_habit(made):
    """Heads and residual branches begin near zero."""
    assert_no_spread(outputs(made, *layers(6, 1.0, last=1e-6)))


def test_a_net_that_learns_all_the_same_is_left_alone(made):
    """Its loss came down."""
    assert check_spread(outputs(made, *layers(6, 10.0), loss=np.linspace(2.3, 0.2, 200))).ok


def test_inputs_of_a_large_unit_are_no_spread(made):
    """Only the first layer sees them."""
    kinds, mean, std = layers(5, 1.0)
    std[0] = 20_000.0
    assert check_spread(outputs(made, kinds, mean, std)).ok


def test_two_layers_have_no_depth(made):
    """And a recording without outputs has no layers."""
    assert not check_spread(outputs(made, *layers(2, 1e6))).asked


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (check_dead_units, {"max_dead": 1}),
        (check_dead_units, {"min_rows": 0}),
        (check_saturation, {"min_slope": 1}),
        (check_saturation, {"min_steps": 0}),
        (check_spread, {"max_ratio": 1}),
    ],
)
def test_limits_that_make_no_sense_are_refused(made, check, arguments):
    """By name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        check(made().trace(), **arguments)
