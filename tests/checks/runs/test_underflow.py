"""Gradients that are zero because float16 has no number so small."""

import dataclasses

import numpy as np
import pytest

from pytest_mltd.checks.runs.underflow import assert_no_underflow, check_underflow
from pytest_mltd.core.findings import CheckFailed
from pytest_mltd.core.traces import Trace


def half(made, *, zeros=(0, 2), size=1e-6, fall=False, scale=1.0, dtype="float16"):
    """Return a run whose layers put out numbers of one type, and whose gradients are zero for some parameters."""
    run = made()
    run.grad = np.full_like(run.grad, size)
    run.grad[:, list(zeros)] = 0.0
    run.scale[:] = scale
    if not fall:
        run.loss[:] = 2.3
    trace = run.trace()
    values = np.linspace(0.1, 3.0, 24 * 3).reshape(24, 3).astype(np.float32)
    if dtype == "float16":
        values = values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    outputs = {**trace.outputs, "min": values, "max": values}
    losses = {**trace.losses, "scale": run.scale}
    return dataclasses.replace(trace, outputs=outputs, losses=losses)


def test_gradients_underflow(made):
    """Which weights, in how many steps, and how small even the others are."""
    finding = check_underflow(half(made))
    assert str(finding) == (
        "precision.underflow: gradients underflow in float16: 100% of the weights' gradients are exactly zero, that of "
        "'fc1.weight' in 100% of steps (max_zero=0.3), and no GradScaler is in use\n"
        "\n"
        "    weight      share of zero gradients\n"
        "  > fc1.weight  1\n"
        "    fc2.weight  1\n"
        "\n"
        "    Even the largest gradient is 2.5e-07 (root mean square), and float16 knows no number between 0 and 6e-8.\n"
        "    next: scale the loss: scaler = torch.amp.GradScaler(), scaler.scale(loss).backward(), scaler.step(optimizer), "
        "scaler.update(); or use bfloat16"
    )
    assert finding.culprit == "fc1.weight"


@pytest.mark.parametrize("change", [{"size": 0.1}, {"fall": True}, {"zeros": ()}])
def test_zeros_of_another_kind(made, change):
    """Dead units beside large gradients, a loss that falls, no zeros: all fine."""
    finding = check_underflow(half(made, **change))
    assert finding.ok
    assert finding.looked_at == "2 weights over 200 steps"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": "float32"}, "no layer computes in float16"),
        ({"dtype": "bfloat16"}, "no layer computes in float16"),
        ({"scale": 1024.0}, "a GradScaler is in use"),
    ],
)
def test_where_it_does_not_apply(made, change, reason):
    """Other types have smaller numbers, and a scale lifts the gradients."""
    assert check_underflow(half(made, **change)).headline == reason


def test_weights_that_are_float16_themselves(made):
    """Then their type tells, whatever the outputs."""
    trace = half(made, dtype="float32")
    weights = tuple(dataclasses.replace(p, dtype="float16") for p in trace.parameters)
    assert check_underflow(dataclasses.replace(trace, parameters=weights)).failed


def test_an_underflow_may_be_allowed_and_the_twin_raises(made):
    """The place is a parameter."""
    assert check_underflow(half(made), allow={"fc*": "its inputs are zero on purpose"}).ok
    with pytest.raises(CheckFailed, match="gradients underflow"):
        assert_no_underflow(half(made))
    with pytest.raises(ValueError, match="^max_zero: "):
        check_underflow(half(made), max_zero=0)
    assert not check_underflow(Trace()).asked
