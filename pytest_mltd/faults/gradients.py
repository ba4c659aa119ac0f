"""Faults of what becomes of the gradients between backward and step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=("gradients.stale_gradients",),
    says="zero_grad does nothing, of optimizers and of modules",
    needs="call of zero_grad",
)
def stale_gradients(planting: Planting) -> Iterator[None]:
    from torch import nn, optim

    def idle(original: Any) -> Any:
        return lambda *args, **kwargs: planting.harmed()

    with standing_in(planting, optim.Optimizer, "zero_grad", idle), standing_in(planting, nn.Module, "zero_grad", idle):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="gradients are cleared right before each step",
    needs="optimizer step with a gradient",
)
def cleared_before_step(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import before_step

    def clear(optimizer: Any) -> None:
        if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            planting.harmed()
        optimizer.zero_grad()

    with before_step(planting, clear, with_closures=False):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="gradients are cleared before each backward, also between those that one step adds up",
    needs="second backward before a step",
)
def cleared_while_accumulating(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import before_backward, before_step

    waiting: dict[int, Any] = {}  # optimizers that have stepped
    since = [0]

    def clear(tensors: Any) -> Any:
        if since[0] and waiting:
            planting.harmed()
            for optimizer in waiting.values():
                optimizer.zero_grad()
        since[0] += 1
        return tensors

    def stepped(optimizer: Any) -> None:
        waiting[id(optimizer)] = optimizer
        since[0] = 0

    with before_backward(planting, clear), before_step(planting, stepped):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="the optimizer steps only at the next backward, before it",
    needs="step of an optimizer made meanwhile",
)
def step_before_backward(planting: Planting) -> Iterator[None]:
    from torch import optim

    from pytest_mltd.faults.taps import before_backward, own_method

    late: list[Any] = []

    def postpone(optimizer: Any, step: Any) -> Any:
        return lambda *args, **kwargs: late.append((step, args, kwargs))

    def catch_up(tensors: Any) -> Any:
        for step, args, kwargs in late:
            planting.harmed()
            step(*args, **kwargs)
        late.clear()
        return tensors

    with own_method(planting, optim.Optimizer, "step", postpone), before_backward(planting, catch_up):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="gradients are clipped before backward, and no more after it",
    needs="second clipping by norm",
)
def clip_before_backward(planting: Planting) -> Iterator[None]:
    from torch.nn import utils

    from pytest_mltd.faults.taps import before_backward

    asked: list[tuple[Any, float]] = []
    for_real = [False]

    def measure_only(original: Any) -> Any:
        def clip(parameters: Any, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
            if for_real[0]:
                return original(parameters, max_norm, *args, **kwargs)
            chosen = [parameters] if hasattr(parameters, "grad") else list(parameters)
            asked[:] = [(chosen, max_norm)]
            return None

        return clip

    def clip_now(tensors: Any) -> Any:
        if asked:
            planting.harmed()
            for_real[0] = True
            try:
                utils.clip_grad_norm_(*asked.pop())
            finally:
                for_real[0] = False
        return tensors

    with (
        standing_in(planting, utils.clip_grad, "_clip_grads_with_norm_", measure_only),
        before_backward(planting, clip_now),
    ):
        yield


@fault(
    reds=("gradients.explosion",),
    says="gradients of SGD grow by a fifth with each step from the 30th on",
    needs="31st step of SGD",  # Adam and its kin divide the size out
)
def gradients_explode(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import before_step

    steps: dict[int, int] = {}

    def grow(optimizer: Any) -> None:
        if type(optimizer).__name__ != "SGD":
            return
        steps[id(optimizer)] = steps.get(id(optimizer), 0) + 1
        beyond = steps[id(optimizer)] - 30
        for parameter in _with_gradient(optimizer) if beyond > 0 else ():
            planting.harmed()
            parameter.grad.mul_(min(1.2**beyond, 1e12))

    with before_step(planting, grow, with_closures=False):
        yield


@fault(
    reds=("gradients.nonfinite",),
    says="a gradient of the first parameter is NaN at the eleventh step",
    needs="eleventh optimizer step",
)
def nan_in_gradient(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import before_step

    steps = [0]

    def spoil(optimizer: Any) -> None:
        steps[0] += 1
        parameter = next(iter(_with_gradient(optimizer)), None)
        if steps[0] == 11 and parameter is not None:
            planting.harmed()
            parameter.grad[(0,) * parameter.grad.dim()] = float("nan")

    with before_step(planting, spoil, with_closures=False):
        yield


@fault(
    reds=("updates.frozen_parameters",),
    says="the output of the first layer is detached",
    needs="model of two layers or more",
)
def detached_output(planting: Planting) -> Iterator[None]:
    with _first_layer(planting, lambda output: output.detach()):
        yield


@fault(
    reds=("updates.frozen_parameters",),
    says="the gradient of the first parameter is always zero",
    needs="optimizer step with a gradient",
)
def gradient_blocked(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import before_step

    def block(optimizer: Any) -> None:
        parameter = optimizer.param_groups[0]["params"][0]
        if parameter.grad is not None:
            planting.harmed()
            parameter.grad = None

    with before_step(planting, block, with_closures=False):
        yield


def _with_gradient(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from (p for p in group["params"] if p.grad is not None and not p.grad.is_sparse)


def _first_layer(planting: Planting, change: Any) -> Any:
    """Change the output of each model's first layer with parameters, where another comes after it."""
    from contextlib import ExitStack

    from pytest_mltd.faults.taps import in_training, models, outputs

    first: dict[int, Any] = {}  # model -> its first layer; held, or else an id could come twice
    now: list[Any] = []

    def begin(model: Any, args: Any) -> None:
        now[:] = [model]

    def altered(module: Any, output: Any) -> Any:
        model = now[0]
        if id(model) not in first:
            layers = [m for m in model.modules() if any(True for _ in m.parameters(recurse=False))]
            first[id(model)] = model, module if len(layers) > 1 and module is not model else None
        return change(output) if first[id(model)][1] is module and in_training(output) else None

    stack = ExitStack()
    stack.enter_context(models(planting, begin))
    stack.enter_context(outputs(planting, altered))
    return stack
