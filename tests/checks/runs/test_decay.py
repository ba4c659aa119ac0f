"""Weight decay that decides what the weights become."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.decay import assert_no_weight_decay, check_weight_decay
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import OptimizerInfo, Trace


def decayed(made, name="SGD", decay=1.0, shrink=0.05, fall=False):
    """Return a run whose weights shrink by a share at each sampled step."""
    run = made()
    settings = {"lr": 0.1, "weight_decay": decay}
    run.optimizers = (OptimizerInfo(name=name, parameters=4, settings=settings, site="train.py:7"),)
    if not fall:
        run.loss = 2.3 + 0.01 * np.sin(np.arange(200))
    trace = run.trace()
    left = (1 - shrink) ** np.arange(len(trace.updates["step"]))[:, None]
    weight = trace.updates["weight"] * left
    update = 0.1 * decay * weight if name == "AdamW" else trace.updates["update"]
    return dataclasses.replace(trace, updates={**trace.updates, "weight": weight, "update": update})


def test_decay_that_is_added_to_the_gradient(made):
    """The optimizer with its line, the share, and what became of the weights."""
    finding = check_weight_decay(decayed(made))
    assert str(finding) == (
        "updates.weight_decay: weight decay decides, not the loss: it is 0.86 of what the first steps of SGD do "
        "(max_share=0.5; weight_decay=1, made at train.py:7)\n"
        "\n"
        "    step  norm of weights  update   share of decay  loss\n"
        "  > 0     5.657            0.0769   0.8803          2.3\n"
        "    1     5.374            0.08648  0.8614          2.308\n"
        "    2     5.105            0.0803   0.8641          2.309\n"
        "    80    3.057            0.02353  0.9285          2.29\n"
        "    190   1.739            0.0147   0.922           2.31\n"
        "\n"
        "    The weights shrink to 0.31 of their first norm by step 190, and the loss stays: it begins at 2.3 and ends at "
        "2.31.\n"
        "    next: lower weight_decay: 0.01 to 0.1 is usual for AdamW, 0.0001 to 0.001 for SGD"
    )
    assert (finding.culprit, finding.step) == ("SGD", 0)


def test_decoupled_decay(made):
    """AdamW's whole update is the decay."""
    finding = check_weight_decay(decayed(made, name="AdamW"))
    assert finding.failed
    assert finding.amount == pytest.approx(1.0)


@pytest.mark.parametrize("change", [{"fall": True}, {"shrink": 0.001}, {"decay": 1e-4}])
def test_a_decay_that_does_no_harm(made, change):
    """The loss comes down, the weights stay, or the decay is small."""
    assert check_weight_decay(decayed(made, **change)).ok


def test_what_cannot_be_asked(made):
    """No decay at all, no steps; a pass says what it looked at."""
    assert check_weight_decay(made().trace()).headline == "no optimizer has a weight decay"
    assert not check_weight_decay(Trace()).asked
    assert check_weight_decay(decayed(made, fall=True)).looked_at == "24 sampled steps of SGD"


def test_a_decay_may_be_allowed_and_the_twin_raises(made):
    """The place is the optimizer."""
    assert check_weight_decay(decayed(made), allow={"SGD": "weights are meant to vanish"}).ok
    with pytest.raises(CheckFailed, match="weight decay decides"):
        assert_no_weight_decay(decayed(made))
    with pytest.raises(ValueError, match="^max_share: "):
        check_weight_decay(decayed(made), max_share=1.5)
