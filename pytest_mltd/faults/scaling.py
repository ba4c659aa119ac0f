"""Faults of mixed precision: of the loss scale, and of who takes it out again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault


@fault(
    reds=("calls.misordered_calls",),
    says="the optimizer steps without the scaler, on gradients that hold the loss scale",
    needs="step of a GradScaler made meanwhile",
)
def step_while_scaled(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import own_method

    def bypass(scaler: Any, step: Any) -> Any:
        def direct(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            planting.harmed()
            return optimizer.step(*args, **kwargs)

        return direct

    def idle(scaler: Any, method: Any) -> Any:
        return lambda *args, **kwargs: None

    kind = torch.amp.GradScaler
    with (
        own_method(planting, kind, "step", bypass),
        own_method(planting, kind, "unscale_", idle),
        own_method(planting, kind, "update", idle),
    ):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="gradients are clipped before the loss scale is taken out",
    needs="unscale_ of a GradScaler made meanwhile",
)
def clip_before_unscale(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import own_method

    stepping: list[Any] = []

    def only_in_step(scaler: Any, unscale: Any) -> Any:
        def unscale_(optimizer: Any) -> Any:
            if stepping:
                return unscale(optimizer)
            planting.harmed()
            return None

        return unscale_

    def mark(scaler: Any, step: Any) -> Any:
        def marked(*args: Any, **kwargs: Any) -> Any:
            stepping.append(scaler)
            try:
                return step(*args, **kwargs)
            finally:
                stepping.pop()

        return marked

    kind = torch.amp.GradScaler
    with own_method(planting, kind, "unscale_", only_in_step), own_method(planting, kind, "step", mark):
        yield


@fault(
    reds=("precision.loss_scale",),
    says="gradients are infinite at any loss scale, so that the scale is halved at every step",
    needs="backward of a scaled loss",
)
def scale_falls(planting: Planting) -> Iterator[None]:
    import torch

    from pytest_mltd.faults.taps import own_method

    def overflow(scaler: Any, scale: Any) -> Any:
        def scaled(given: Any) -> Any:
            result = scale(given)
            if isinstance(result, torch.Tensor) and result.requires_grad:
                planting.harmed()
                again = result.view_as(result)
                again.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]
                return again
            return result

        return scaled

    with own_method(planting, torch.amp.GradScaler, "scale", overflow):
        yield
