"""The first difference of two runs, by step, phase and name, and the class of its cause."""

import numpy as np
import pytest

from pytest_mltd.checks.runs.divergence import assert_no_divergence, check_divergence
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Module, OptimizerInfo, Parameter, SeedCall, Trace

PARAMETERS = ("conv.weight", "conv.bias", "fc.weight")
MODULES = ("conv", "fc")


def run(n=20, every=1, change=None, at=0, name=0, **kept):
    """A run of n steps with digests at every k-th; ``change`` alters one column from a step on, as chaos would what follows."""
    steps = np.arange(0, n, every)
    order = ("python", "numpy", "torch", "inputs", "output", "loss", "grad", "grad_used", "optimizer_state", "weight")
    widths = {"output": len(MODULES), "grad": 3, "grad_used": 3, "weight": 3}
    digests = {"step": steps}
    for i, column in enumerate(order):
        shape = (len(steps), widths[column]) if column in widths else (len(steps),)
        values = (np.arange(np.prod(shape)).reshape(shape) + 1 + 1000 * i).astype("<u8")
        if change:
            later = column not in ("python", "numpy", "torch", "inputs") or column == change
            values[steps > at] += np.uint64(7 * later)
            here = steps == at
            if column == change and column in widths:
                values[here, name] += np.uint64(7)
            elif order.index(column) >= order.index(change) and column in (
                change,
                "loss",
                "weight",
                "output",
                "grad",
                "grad_used",
            ):
                values[here] += np.uint64(7)
        digests[column] = values
    loss = 2 - 0.05 * np.arange(n)
    if change:
        loss[at + 1 :] += 1e-6
        if change in ("inputs", "output", "loss", "torch"):
            loss[at] += 1e-6
    columns = {
        "steps": {
            "optimizer": np.zeros(n, int),
            "stream": np.zeros(n, int),
            "loss": loss,
            "backwards": np.ones(n, int),
        },
        "losses": {"step": np.arange(n), "stream": np.zeros(n, int), "value": loss},
        "digests": digests,
        "parameters": tuple(Parameter(name=p, shape=(2, 2), optimizers=(0,)) for p in PARAMETERS),
        "modules": tuple(Module(name=m) for m in MODULES),
        "optimizers": (OptimizerInfo(name="SGD"),),
        "streams": ("train.py:12",),
        "settings": {"threads": 1},
    }
    return Trace(**{**columns, **kept})


def test_equal_runs_pass_and_say_how_much_was_compared():
    """Every digest and every number counts as one event."""
    finding = check_divergence(run(), run())
    assert finding.ok
    assert finding.headline == "runs are equal, bit for bit, in 360 events"
    assert finding.looked_at == "20 steps of both; digests at 20 of them"


def test_a_difference_in_backward_is_named_by_parameter():
    """Backward is read from the loss down; what was equal before it is shown, and the cause class fits."""
    finding = check_divergence(run(), run(change="grad", at=3, name=2))
    assert (finding.step, finding.culprit, finding.details["cause"]) == (3, "fc.weight", "result")
    assert str(finding) == (
        "runs.divergence: runs agree for 58 events, then differ in backward of 'fc.weight' at step 3\n"
        "\n"
        "    step  phase             name       run 1  run 2  bytes\n"
        "    3     random state      Python                   same\n"
        "    3     random state      numpy                    same\n"
        "    3     random state      torch                    same\n"
        "    3     batch             inputs                   same\n"
        "    3     forward           all 2                    same\n"
        "    3     loss              loss       1.85   1.85   same\n"
        "  > 3     backward          fc.weight                differ\n"
        "    3     gradient as used  fc.weight                differ\n"
        "    3     gradient as used  conv.bias                differ\n"
        "\n"
        "    Recorded inputs, weights and random state match up to the marked row: the same work gave another result.\n"
        "    next: rerun under torch.use_deterministic_algorithms(True); it names the operation if it is a known one"
    )


@pytest.mark.parametrize(
    ("column", "culprit", "phase", "cause"),
    [
        ("torch", "torch", "random state", "random state"),
        ("inputs", "inputs", "batch", "inputs"),
        ("output", "conv", "forward", "result"),
        ("loss", "loss", "loss", "result"),
        ("grad_used", "conv.weight", "gradient as used", "result"),
        ("weight", "conv.weight", "weights", "result"),
    ],
)
def test_each_phase_is_named(column, culprit, phase, cause):
    """The planted column is the one that is found, at its step."""
    finding = check_divergence(run(), run(change=column, at=7))
    assert (finding.step, finding.culprit, finding.details["phase"], finding.details["cause"]) == (
        7,
        culprit,
        phase,
        cause,
    )


def test_the_order_of_the_runs_does_not_matter():
    """A law: swapped runs give the same place and count."""
    one, two = run(), run(change="inputs", at=5)
    a, b = check_divergence(one, two), check_divergence(two, one)
    assert (a.step, a.culprit, a.amount) == (b.step, b.culprit, b.amount)


def test_sampled_digests_give_a_bracket():
    """Between the last equal sample and the first different number, and how to make it exact."""
    finding = check_divergence(run(60, every=10), run(60, every=10, change="output", at=40))
    assert finding.step == 40
    assert "then differ between steps 30 and 40, first seen in forward of 'conv'" in finding.headline
    assert "exact with level everything" in finding.headline


def test_numbers_kept_at_each_step_narrow_the_bracket():
    """A loss that differs at step 33 comes before the sample at step 40."""
    one, two = run(60, every=10), run(60, every=10, change="weight", at=32)
    finding = check_divergence(one, two)
    assert finding.step == 33
    assert finding.culprit == "loss"
    assert not finding.details["exact"] or finding.details["after"] == 32


def test_a_seed_that_changes_is_named_with_its_line():
    """The random state differed because it was given two seeds."""
    seeds = [(SeedCall(what="torch.manual_seed", value=v, site="data.py:9"),) for v in ("17", "18")]
    finding = check_divergence(run(seeds=seeds[0]), run(change="torch", at=0, seeds=seeds[1]))
    assert finding.details["cause"] == "seed"
    assert "torch.manual_seed was given 17 in run 1 and 18 in run 2 (data.py:9)" in finding.shows


def test_a_random_state_nobody_draws_from_is_no_difference():
    """A fresh process has another state of Python's generator; a training that seeds torch only is still the same."""
    one, two = run(), run()
    idle = {**one.digests, "python": np.full(20, 5, "<u8")}
    other = {**two.digests, "python": np.full(20, 6, "<u8")}
    finding = check_divergence(run(digests=idle), run(digests=other))
    assert finding.ok
    assert "the random state of Python differed, and nothing followed from it" in finding.looked_at


def test_a_random_state_that_differed_long_before_is_not_the_cause():
    """The backward differs at step 9; Python's state did from the start."""
    one, two = run(), run(change="grad", at=9)
    idle = {**one.digests, "python": np.full(20, 5, "<u8")}
    other = {**two.digests, "python": np.full(20, 6, "<u8")}
    finding = check_divergence(run(digests=idle), run(steps=two.steps, losses=two.losses, digests=other))
    assert (finding.step, finding.culprit, finding.details["cause"]) == (9, "conv.weight", "result")


def test_a_generator_made_without_a_seed_is_named():
    """Random states agree, the batch does not, and one generator has no seed."""
    seeds = (SeedCall(what="numpy.random.default_rng", value=None, site="augment.py:4"),)
    finding = check_divergence(run(seeds=seeds), run(change="inputs", at=0, seeds=seeds))
    assert "numpy.random.default_rng() was made without a seed (augment.py:4)" in finding.shows


def test_the_same_batches_in_another_order_are_recognised():
    """The set of batches agrees, their order does not."""
    one = run()
    shuffled = dict(one.digests)
    shuffled["inputs"] = np.array(one.digests["inputs"])[::-1]
    two = run(digests=shuffled)
    finding = check_divergence(one, two)
    assert finding.details["cause"] == "input order"


def test_runs_of_different_length_differ_where_the_shorter_ends():
    """All common steps are equal, and yet these are two runs."""
    finding = check_divergence(run(20), run(15))
    assert not finding.ok
    assert finding.headline == "runs agree up to step 15, where run 2 ends; the other goes on to step 20"


def test_a_run_that_was_cut_is_compared_as_far_as_it_goes():
    """Cutting is no difference."""
    one = run(20)
    short = {name: {k: v[:15] for k, v in getattr(one, name).items()} for name in ("steps", "losses", "digests")}
    finding = check_divergence(one, run(15, ended="cut", **short))
    assert finding.ok
    assert "the shorter was cut after 15" in finding.looked_at


def test_settings_that_change_bits_refuse_the_comparison():
    """Another thread count gives other bits; the setting is named with both values."""
    finding = check_divergence(run(), run(settings={"threads": 2}))
    assert not finding.asked
    assert finding.headline == "bits cannot be compared, settings that change them differ: threads (1 and 2)"


def test_two_models_differ_before_the_first_step():
    """A parameter of another shape is the first difference."""
    other = tuple(Parameter(name=p, shape=(3, 2) if p == "fc.weight" else (2, 2), optimizers=(0,)) for p in PARAMETERS)
    finding = check_divergence(run(), run(parameters=other))
    assert finding.headline == "runs train different parameters: 'fc.weight' is [2, 2] in run 1 and [3, 2] in run 2"


def test_equal_nans_are_equal():
    """Two runs that break alike are the same run."""
    nan = np.full(20, np.nan)
    columns = {"steps": {"optimizer": np.zeros(20, int), "loss": nan}, "losses": {"step": np.arange(20), "value": nan}}
    assert check_divergence(run(**columns), run(**columns)).ok


def test_scalars_can_be_compared():
    """The losses alone tell the step, not the cause."""
    finding = check_divergence(
        Trace.from_scalars({"loss": [2.0, 1.0, 0.5]}), Trace.from_scalars({"loss": [2.0, 1.5, 0.5]})
    )
    assert (finding.step, finding.culprit) == (1, "loss")


def test_which_run_was_not_one_is_said():
    """The refusal begins with the argument's name."""
    with pytest.raises(TypeError, match="^second: a recorded run is needed"):
        check_divergence(run(), 3)
    assert check_divergence(run(), Trace()).headline.startswith("the second run: nothing was trained")


def test_the_twin_raises():
    """`assert_no_divergence` carries the finding."""
    with pytest.raises(CheckFailed, match="runs agree for"):
        assert_no_divergence(run(), run(change="loss", at=4))
