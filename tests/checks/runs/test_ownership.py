"""Parameters in two optimizers that both step on one gradient."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.ownership import assert_no_double_updates, check_double_updates
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import OptimizerInfo, Trace


def shared(made, backwards, names=("fc2.weight", "fc2.bias")):
    """Return a run of two optimizers by turns that share parameters; ``backwards`` tells whether each has one of its own."""
    run = made()
    run.owner = np.arange(200) % 2
    run.optimizers = (OptimizerInfo(name="Adam", site="a.py:7"), OptimizerInfo(name="SGD", site="a.py:8"))
    run.parameters = tuple(
        dataclasses.replace(p, optimizers=(0, 1) if p.name in names else (0,)) for p in run.parameters
    )
    run.order = [
        ("forward", "zero_grad", "backward", "step") if s % 2 == 0 or backwards else ("step",) for s in range(200)
    ]
    return run.trace()


def test_two_optimizers_step_on_one_gradient(made):
    """Which parameters, which optimizers and where they were made, and from which step on."""
    finding = check_double_updates(shared(made, backwards=False))
    assert str(finding) == (
        "updates.double_updates: Adam (optimizer 0) and SGD (optimizer 1) both hold 2 parameters, 'fc2.weight' and 'fc2.bias', "
        "and step on the same gradients (made at a.py:7 and a.py:8): each backward moves them twice, in 100% of steps "
        "(max_share=0.2)\n"
        "\n"
        "    parameter   gradient used at step 0  at step 1\n"
        "  > fc2.weight  0.5197                   0.5956\n"
        "    fc2.bias    0.6365                   0.5246\n"
        "\n"
        "    No backward came between the two steps: the second repeats the first, with its own learning rate and momentum.\n"
        "    next: give each parameter to one optimizer"
    )
    assert (finding.step, finding.culprit) == (1, "fc2.weight")


def test_optimizers_that_take_turns(made):
    """Each has a backward of its own: an encoder under two losses."""
    finding = check_double_updates(shared(made, backwards=True))
    assert finding.ok
    assert finding.looked_at == "2 parameters in two of 2 optimizers"


def test_optimizers_of_one_backward_with_parameters_of_their_own(made):
    """One backward for two optimizers is usual."""
    assert check_double_updates(shared(made, backwards=False, names=())).ok


def test_an_optimizer_of_its_own_kind_may_work_on_what_another_did(made):
    """Slow weights that the fast ones are pulled to, an average: no second update."""
    trace = shared(made, backwards=False)
    slow = (trace.optimizers[0], OptimizerInfo(name="SlowWeights", site="a.py:8"))
    assert check_double_updates(dataclasses.replace(trace, optimizers=slow)).ok


def test_what_cannot_be_asked(made):
    """One optimizer, no steps."""
    assert check_double_updates(made().trace()).headline == "only one optimizer stepped"
    assert not check_double_updates(Trace()).asked


def test_a_double_update_may_be_allowed_and_the_twin_raises(made):
    """The place is a parameter."""
    trace = shared(made, backwards=False)
    assert check_double_updates(trace, allow={"fc2.*": "on purpose"}).ok
    with pytest.raises(CheckFailed, match="moves them twice"):
        assert_no_double_updates(trace)
    with pytest.raises(ValueError, match="^max_share: "):
        check_double_updates(trace, max_share=1)
