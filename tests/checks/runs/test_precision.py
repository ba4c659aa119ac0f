"""Half precision: a loss scale that is no use, and updates that rounding swallows."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.precision import (
    assert_no_loss_scale,
    assert_no_lost_updates,
    check_loss_scale,
    check_lost_updates,
)
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import OptimizerInfo, Trace


def scaled(made, scale, skipped=()):
    """Return a run whose backwards had these loss scales."""
    run = made(len(scale))
    run.scale = np.asarray(scale, float)
    run.order = [("forward", "zero_grad", "backward", "skipped_step" if i in skipped else "step") for i in range(run.n)]
    trace = run.trace()
    return dataclasses.replace(trace, losses={**trace.losses, "scale": run.scale})


def halving(n=100, first=65536.0):
    return first * 0.5 ** np.arange(n)


def test_a_scale_that_falls_without_end(made):
    """It is halved at each backward, to far below 1, where nothing overflows."""
    finding = check_loss_scale(scaled(made, halving(), skipped=range(100)))
    assert str(finding) == (
        "precision.loss_scale: the loss scale falls without end, from 65,536 to 1.034e-25 (min_scale=1): the GradScaler skips "
        "100 of 100 steps, their gradients are not finite at any scale\n"
        "\n"
        "    backward  steps done  scale      loss\n"
        "    0         0           65,536     2.303\n"
        "  > 17        17          0.5        1.034\n"
        "    24        24          0.003906   0.7807\n"
        "    49        49          1.164e-10  0.3161\n"
        "    74        74          3.469e-18  0.1908\n"
        "    99        99          1.034e-25  0.08755\n"
        "\n"
        "    It was lowered 49 times in the second half of the run and never rose: at a scale this small nothing overflows any "
        "more, so the gradients are NaN or infinite by themselves.\n"
        "    next: run one step in float32 with torch.autograd.set_detect_anomaly(True): a division by zero, sqrt(0) or an "
        "activation beyond 65,504 makes them"
    )
    assert (finding.culprit, finding.step) == ("GradScaler", 17)


def test_a_scale_that_falls_until_it_fits(made):
    """A first scale that is too high costs some steps; then it holds."""
    scale = np.concatenate([halving(20, 2.0**30), np.full(80, 2.0**10)])
    finding = check_loss_scale(scaled(made, scale, skipped=range(20)))
    assert finding.ok
    assert finding.looked_at == "100 backwards, 20 skipped steps"


def test_a_scale_that_rises_and_falls_again(made):
    """Growth and overflow by turns is how a scaler finds the highest scale."""
    scale = np.tile(np.concatenate([np.full(9, 1024.0), [2048.0]]), 10)
    assert check_loss_scale(scaled(made, scale)).ok


def test_a_small_scale_that_holds_is_not_judged(made):
    """A net whose gradients are huge may need a scale below 1."""
    assert check_loss_scale(scaled(made, np.full(100, 0.25))).ok


def test_a_falling_scale_under_losses_that_are_nan(made):
    """The NaN is the cause, and another question's."""
    trace = scaled(made, halving(), skipped=range(100))
    trace = dataclasses.replace(trace, losses={**trace.losses, "value": np.full(100, np.nan)})
    assert check_loss_scale(trace).ok


@pytest.mark.parametrize(("value", "text"), [(np.inf, "inf"), (0.0, "0"), (np.nan, "NaN")])
def test_a_scale_of_no_use(made, value, text):
    """Infinite, zero or NaN: from which step on."""
    scale = np.concatenate([np.full(40, 1024.0), np.full(60, value)])
    finding = check_loss_scale(scaled(made, scale))
    assert finding.headline == f"the loss scale of the GradScaler is {text} from step 40 on (min_scale=1)"


def test_a_run_without_a_scaler_is_not_asked(made):
    """Nothing was scaled, or too little."""
    assert check_loss_scale(made().trace()).headline == "no loss scale was seen (no GradScaler in use)"
    assert check_loss_scale(scaled(made, halving(8))).headline == "8 of at least 20 backwards"
    assert check_loss_scale(Trace()).headline.startswith("nothing was trained")


def test_a_loss_scale_may_be_allowed_and_its_twin_raises(made):
    """The place is the GradScaler; without an allowance the twin raises."""
    trace = scaled(made, halving(), skipped=range(100))
    assert check_loss_scale(trace, allow={"GradScaler": "a stress test"}).ok
    with pytest.raises(CheckFailed, match="falls without end"):
        assert_no_loss_scale(trace)
    with pytest.raises(ValueError, match="^min_scale: "):
        check_loss_scale(trace, min_scale=0)


def halved(made, dtype="bfloat16", share=0.1, fall=False, name="SGD", rate=1e-3):
    """Return a run of half-precision weights that take up a share of their updates."""
    run = made()
    run.lr[:] = rate
    run.parameters = tuple(dataclasses.replace(p, dtype=dtype) for p in run.parameters)
    run.optimizers = (OptimizerInfo(name=name, parameters=4, settings={"lr": rate}, site="train.py:7"),)
    if not fall:
        run.loss[:] = 2.3
    trace = run.trace()
    asked = (
        trace.updates["update"]
        if name == "SGD"
        else np.tile([16 * rate, 4 * rate] * 2, (len(trace.updates["step"]), 1))
    )
    return dataclasses.replace(trace, updates={**trace.updates, "update": (share * asked).astype(np.float32)})


def test_updates_lost_to_rounding(made):
    """The optimizer and its line, the share that is kept, and the spacing of the weights."""
    finding = check_lost_updates(halved(made))
    assert str(finding) == (
        "precision.lost_updates: updates of SGD are lost to rounding: bfloat16 weights take up 0.1 of what its steps ask for "
        "(min_kept=0.5), made at train.py:7\n"
        "\n"
        "    weight      dtype     share kept\n"
        "  > fc1.weight  bfloat16  0.1\n"
        "    fc2.weight  bfloat16  0.1\n"
        "\n"
        "    A step asks for 1.1e-05 at a weight, where neighbouring bfloat16 numbers are 0.002 apart: less than half of "
        "that changes nothing. The loss begins at 2.3 and ends at 2.3.\n"
        "    next: keep the weights in float32 and use torch.autocast for the operations, or an optimizer with float32 copies"
    )


def test_updates_of_an_optimizer_that_divides_the_gradient_out(made):
    """Adam asks for about lr at each weight."""
    finding = check_lost_updates(halved(made, name="AdamW", rate=1e-5))
    assert finding.failed
    assert "AdamW" in finding.headline


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "float32"},
        {"share": 0.9},
        {"fall": True},
        {"rate": 1.0},
        {"name": "KahanAdamW"},
    ],
)
def test_nothing_is_lost(made, change):
    """Float32 weights, updates that arrive, a loss that falls, a rate above the spacing, an optimizer of its own rule."""
    assert not check_lost_updates(halved(made, **change)).failed


def test_what_is_looked_at(made):
    """A pass says how many steps; what cannot be asked says why."""
    finding = check_lost_updates(halved(made, share=0.9))
    assert (finding.ok, finding.looked_at) == (True, "24 sampled steps of SGD")
    assert check_lost_updates(made().trace()).headline == "no weight that an optimizer holds is kept in half precision"
    assert check_lost_updates(halved(made, name="Mine")).headline.startswith(
        "what a step should change is known of SGD"
    )
    assert not check_lost_updates(Trace()).asked


def test_a_warm_up_asks_for_little_at_first(made):
    """Steps far below the highest rate are left out."""
    trace = halved(made, share=1.0)
    update = trace.updates["update"].copy()
    update[:5] = 0
    lr = trace.steps["lr"].copy()
    lr[:5] = 1e-6
    trace = dataclasses.replace(trace, updates={**trace.updates, "update": update}, steps={**trace.steps, "lr": lr})
    assert check_lost_updates(trace).ok


def test_lost_updates_may_be_allowed_and_the_twin_raises(made):
    """The place is the optimizer."""
    assert check_lost_updates(halved(made), allow={"SGD": "bits are being studied"}).ok
    with pytest.raises(CheckFailed, match="lost to rounding"):
        assert_no_lost_updates(halved(made))
    with pytest.raises(ValueError, match="^min_kept: "):
        check_lost_updates(halved(made), min_kept=-1)
