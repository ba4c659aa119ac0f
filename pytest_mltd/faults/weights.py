"""Faults of the weights and biases with which a model begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault


@fault(
    reds=(
        "losses.high_start",
        "activations.spread",
        "activations.dead_units",
        "activations.saturation",
        "losses.loss_divergence",
    ),
    says="weights begin a hundred times larger",
    needs="model with weights in training",
)
def huge_start(planting: Planting) -> Iterator[None]:
    with _weights(planting, lambda weight: weight.mul_(100)):
        yield


@fault(
    reds=("activations.dead_units", "gradients.vanishing", "losses.plateau"),
    says="weights and biases begin at zero",
    needs="model with weights in training",
)
def zero_start(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import first_forward

    def clear(model: Any) -> bool:
        parameters = [p for p in model.parameters() if p.is_floating_point() and p.requires_grad]
        for parameter in parameters:
            parameter.zero_()
        return bool(parameters)

    with first_forward(planting, clear):
        yield


@fault(
    reds=("gradients.nonfinite",),
    says="one weight begins as NaN",
    needs="model with weights in training",
)
def nan_weight(planting: Planting) -> Iterator[None]:
    done: list[Any] = []

    def spoil(weight: Any) -> None:
        if not done:
            done.append(weight)
            weight[(0,) * weight.dim()] = float("nan")

    with _weights(planting, spoil):
        yield


@fault(
    reds=("activations.dead_units", "gradients.vanishing"),
    says="biases begin at -1000, so that units behind a ReLU are never on",
    needs="model with biases and a ReLU in training",
)
def dead_units(planting: Planting) -> Iterator[None]:
    from torch import nn

    from pytest_mltd.faults.taps import first_forward

    def kill(model: Any) -> bool:
        if not any(isinstance(module, nn.ReLU) for module in model.modules()):
            return False
        biases = [m.bias for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m.bias is not None]
        for bias in biases[:-1]:
            bias.fill_(-1000.0)
        return len(biases) > 1

    with first_forward(planting, kill):
        yield


def _weights(planting: Planting, change: Any) -> Any:
    """Change the weights of two axes or more of each model in place, before its first forward in training."""
    from pytest_mltd.faults.taps import first_forward

    def changed(model: Any) -> bool:
        weights = [p for p in model.parameters() if p.dim() > 1 and p.is_floating_point() and p.requires_grad]
        for weight in weights:
            change(weight)
        return bool(weights)

    return first_forward(planting, changed)
