"""Faults of the optimizer: its rate, its settings, what it holds, and who tells it to change them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_mltd.faults.planting import Planting, fault, standing_in


@fault(
    reds=(
        "updates.update_scale",
        "gradients.explosion",
        "losses.loss_divergence",
        "gradients.nonfinite",
        "losses.loss_spike",
    ),
    says="the learning rate is a thousand times too high",
    needs="optimizer step with a learning rate",
)
def rate_too_high(planting: Planting) -> Iterator[None]:
    with _setting(planting, "lr", lambda rate: rate * 1000):
        yield


@fault(
    reds=("updates.update_scale", "losses.plateau", "updates.frozen_parameters"),
    says="the learning rate is a hundred million times too low",
    needs="optimizer step with a learning rate",
)
def rate_too_low(planting: Planting) -> Iterator[None]:
    with _setting(planting, "lr", lambda rate: rate * 1e-8):
        yield


@fault(
    reds=("updates.frozen_parameters", "updates.update_scale", "losses.plateau"),
    says="the learning rate is zero",
    needs="optimizer step with a learning rate",
)
def rate_zero(planting: Planting) -> Iterator[None]:
    with _setting(planting, "lr", lambda rate: rate * 0):
        yield


@fault(
    reds=("losses.loss_spike", "losses.loss_divergence", "gradients.explosion", "gradients.nonfinite"),
    says="one step, the 41st, has ten thousand times its learning rate",
    needs="41st optimizer step with a learning rate",
)
def rate_jumps(planting: Planting) -> Iterator[None]:
    steps = [0]

    def count(optimizer: Any) -> None:
        steps[0] += 1

    def jump(group: dict[str, Any]) -> bool:
        if steps[0] != 41 or group.get("lr") is None:
            return False
        group["lr"] = group["lr"] * 1e4
        return True

    from pytest_mltd.faults.taps import before_step, settings_in_step

    with before_step(planting, count), settings_in_step(planting, jump):
        yield


@fault(
    reds=("losses.loss_divergence", "gradients.explosion", "gradients.nonfinite", "updates.update_scale"),
    says="each step climbs the loss instead of going down",
    needs="step of an optimizer that can maximize",
)
def climbing(planting: Planting) -> Iterator[None]:
    with _setting(planting, "maximize", lambda wanted: not wanted):
        yield


@fault(
    reds=(
        "losses.loss_divergence",
        "losses.loss_spike",
        "losses.plateau",
        "gradients.explosion",
        "updates.update_scale",
    ),
    says="momentum is 1.05, so that nothing brakes",
    needs="step of an optimizer with momentum",
)
def momentum_beyond_one(planting: Planting) -> Iterator[None]:
    with _setting(planting, "momentum", lambda momentum: 1.05 if momentum else momentum):
        yield


@fault(
    reds=("updates.weight_decay", "updates.update_scale", "losses.plateau"),
    says="weight decay is so large that it decides where the weights go",
    needs="step of an optimizer with weight decay",
)
def decay_decides(planting: Planting) -> Iterator[None]:
    from pytest_mltd.faults.taps import settings_in_step

    def decay(group: dict[str, Any]) -> bool:
        if "weight_decay" not in group or not float(group.get("lr") or 0) > 0:
            return False
        group["weight_decay"] = 0.5 / float(group["lr"])
        return True

    with settings_in_step(planting, decay):
        yield


@fault(
    reds=("updates.frozen_parameters",),
    says="the optimizer is not given the first parameter of its model",
    needs="optimizer of two parameters or more made meanwhile",
)
def parameter_left_out(planting: Planting) -> Iterator[None]:
    def leave_out(optimizer: Any) -> None:
        parameters = optimizer.param_groups[0]["params"]
        if len(parameters) > 1:
            planting.harmed()
            del parameters[0]

    with _made(planting, leave_out):
        yield


@fault(
    reds=("updates.frozen_parameters",),
    says="the optimizer holds copies of the parameters, as after the model was replaced",
    needs="optimizer made meanwhile",
)
def parameters_replaced(planting: Planting) -> Iterator[None]:
    def copy(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            planting.harmed()
            group["params"] = [p.detach().clone().requires_grad_(p.requires_grad) for p in group["params"]]

    with _made(planting, copy):
        yield


@fault(
    reds=("updates.double_updates",),
    says="a second optimizer, plain SGD, holds the same parameters and steps along",
    needs="step of an optimizer made meanwhile",
)
def second_optimizer(planting: Planting) -> Iterator[None]:
    from torch import optim

    from pytest_mltd.faults.taps import own_method

    twins: list[Any] = []

    def in_pairs(optimizer: Any, step: Any) -> Any:
        own: list[Any] = []

        def both(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            if optimizer not in twins:
                if not own:
                    group = optimizer.param_groups[0]
                    own.append(optim.SGD(group["params"], lr=float(group.get("lr", 1e-3))))
                    twins.append(own[0])
                planting.harmed()
                own[0].step()
            return result

        return both

    with own_method(planting, optim.Optimizer, "step", in_pairs):
        yield


@fault(
    reds=("calls.misordered_calls",),
    says="each scheduler advances before the optimizer steps, instead of after it",
    needs="step of a scheduler made meanwhile",
)
def scheduler_before_optimizer(planting: Planting) -> Iterator[None]:
    from torch.optim.lr_scheduler import LRScheduler

    from pytest_mltd.faults.taps import before_step, own_method

    due: dict[int, list[Any]] = {}  # optimizer -> what to call before its next step

    def put_off(scheduler: Any, step: Any) -> Any:
        schedule: list[Any] = [scheduler, step]
        waiting.append(schedule)

        def later(*args: Any, **kwargs: Any) -> None:
            planting.harmed()
            due.setdefault(id(scheduler.optimizer), []).append(lambda: step(*args, **kwargs))

        return later

    waiting: list[Any] = []  # schedulers whose optimizer has not stepped yet

    def before(optimizer: Any) -> None:
        for schedule in [w for w in waiting if w[0].optimizer is optimizer]:
            waiting.remove(schedule)
            schedule[1]()
        for call in due.pop(id(optimizer), ()):
            call()

    with own_method(planting, LRScheduler, "step", put_off), before_step(planting, before):
        yield


@fault(
    reds=("calls.misordered_calls", "updates.update_scale"),
    says="each scheduler that is meant for epochs advances with every batch",
    needs="scheduler made meanwhile that pauses between steps",
)
def scheduler_per_batch(planting: Planting) -> Iterator[None]:
    from torch.optim.lr_scheduler import LRScheduler

    from pytest_mltd.faults.taps import after_step, own_method

    schedules: list[tuple[Any, Any, list[int]]] = []

    def with_us(scheduler: Any, step: Any) -> Any:
        since = [0]
        schedules.append((scheduler, step, since))

        def told(*args: Any, **kwargs: Any) -> None:
            if since[0] < 2:  # it comes with each step already
                step(*args, **kwargs)
            since[0] = 0

        return told

    def after(optimizer: Any) -> None:
        for scheduler, step, since in schedules:
            if scheduler.optimizer is optimizer:
                since[0] += 1
                if since[0] > 1:
                    planting.harmed()
                    step()

    with own_method(planting, LRScheduler, "step", with_us), after_step(planting, after):
        yield


def _setting(planting: Planting, name: str, change: Any) -> Any:
    """Change one setting of each group while a step runs."""
    from pytest_mltd.faults.taps import settings_in_step

    def changed(group: dict[str, Any]) -> bool:
        if group.get(name) is None:  # an optimizer that finds its rate by itself holds None
            return False
        before, group[name] = group[name], change(group[name])
        return bool(before != group[name])

    return settings_in_step(planting, changed)


def _made(planting: Planting, change: Any) -> Any:
    """Call ``change`` with each optimizer right after it was made."""
    from torch.optim import Optimizer

    def around(original: Any) -> Any:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it stands in for one
            original(self, *args, **kwargs)
            change(self)

        return __init__

    return standing_in(planting, Optimizer, "__init__", around)
