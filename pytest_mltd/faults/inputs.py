"""Faults of what goes into a model in training: broken batches, wrong scales, wrong order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault


@fault(
    reds=("gradients.nonfinite", "precision.loss_scale"),
    says="one value of each batch from the eleventh on is NaN",
    needs="eleventh batch of floating-point inputs",
)
def nan_in_batch(planting: Planting) -> Iterator[None]:
    with _batches(planting, lambda number, batch: _with_first(batch, float("nan")) if number > 10 else None):
        yield


@fault(
    reds=("gradients.nonfinite", "precision.loss_scale"),
    says="one value of each batch from the eleventh on is infinite",
    needs="eleventh batch of floating-point inputs",
)
def infinity_in_batch(planting: Planting) -> Iterator[None]:
    with _batches(planting, lambda number, batch: _with_first(batch, float("inf")) if number > 10 else None):
        yield


@fault(
    reds=("losses.plateau", "model.unlearnable_labels", "gradients.vanishing", "activations.dead_units"),
    says="all inputs are zero",
    needs="batch of floating-point inputs",
)
def inputs_zeroed(planting: Planting) -> Iterator[None]:
    with _batches(planting, lambda number, batch: batch * 0):
        yield


@fault(
    reds=("losses.plateau", "model.unlearnable_labels"),
    says="the inputs of each batch are shuffled against its labels",
    needs="batch of two samples or more",
)
def inputs_shuffled(planting: Planting) -> Iterator[None]:
    import torch

    generator = torch.Generator().manual_seed(0)  # the program's own random numbers stay as they are

    def shuffle(number: int, batch: Any) -> Any:
        return batch[torch.randperm(len(batch), generator=generator).to(batch.device)] if len(batch) > 1 else None

    with _batches(planting, shuffle):
        yield


@fault(
    reds=(
        "losses.loss_divergence",
        "gradients.explosion",
        "losses.loss_spike",
        "updates.update_scale",
        "gradients.nonfinite",
    ),
    says="inputs are ten thousand times larger from the 31st batch on",
    needs="31st batch of floating-point inputs",
)
def inputs_change_scale(planting: Planting) -> Iterator[None]:
    with _batches(planting, lambda number, batch: batch * 1e4 if number > 30 else None):
        yield


@fault(
    reds=("losses.loss_spike", "gradients.explosion", "losses.loss_divergence", "gradients.nonfinite"),
    says="the values of one batch, the 41st, are a million times larger",
    needs="41st batch of floating-point inputs",
)
def outlier_batch(planting: Planting) -> Iterator[None]:
    with _batches(planting, lambda number, batch: batch * 1e6 if number == 41 else None):
        yield


def _batches(planting: Planting, change: Callable[[int, Any], Any]) -> contextlib.AbstractContextManager[None]:
    """Give each model, in training, what ``change`` makes of its first input; it is told how many there were, from 1."""
    import torch

    from pytest_mltd.faults.taps import models

    counts: dict[int, tuple[Any, int]] = {}

    def before(model: Any, args: tuple[Any, ...]) -> Any:
        if not torch.is_grad_enabled() or not args or not isinstance(args[0], torch.Tensor):
            return None
        if not args[0].is_floating_point() or not args[0].dim():
            return None
        number = counts.get(id(model), (model, 0))[1] + 1
        counts[id(model)] = model, number
        changed = change(number, args[0])
        if changed is None:
            return None
        planting.harmed()
        return changed, *args[1:]

    return models(planting, before)


def _with_first(batch: Any, value: float) -> Any:
    changed = batch.clone()
    changed[(0,) * changed.dim()] = value  # no view: channels may be last
    return changed
