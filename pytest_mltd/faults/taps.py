"""Where torch lets a fault in: before a backward, around a step, around a module's forward, in a loss function.

What is planted stands inside of what the recorder puts around the same functions later, so that the recorder sees the
program with the fault, not the fault.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from pytest_mltd.faults.planting import Planting, standing_in


@contextlib.contextmanager
def before_backward(planting: Planting, change: Callable[[Any], Any]) -> Iterator[None]:
    """Call ``change`` with what backward is asked of, and go back from what it returns."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            return original(change(tensors), *args, **kwargs)

        return backward

    with standing_in(planting, torch.autograd, "backward", wrap):
        yield


@contextlib.contextmanager
def before_step(planting: Planting, act: Callable[[Optimizer], None], *, with_closures: bool = True) -> Iterator[None]:
    """Call ``act`` with each optimizer that is about to step, before any hook of the recorder.

    Without ``with_closures`` only where its gradients are there already: a step that is given a closure computes its own.
    """

    def hook(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not planting.idle and (with_closures or closure is None):
            act(optimizer)

    handle = register_optimizer_step_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def after_step(planting: Planting, act: Callable[[Optimizer], None]) -> Iterator[None]:
    """Call ``act`` with each optimizer that has stepped."""
    handle = register_optimizer_step_post_hook(
        lambda optimizer, args, kwargs: None if planting.idle else act(optimizer)
    )
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def settings_in_step(planting: Planting, change: Callable[[dict[str, Any]], bool]) -> Iterator[None]:
    """Let each step run on changed settings of its groups; outside of a step a program reads its own.

    ``change`` alters a group in place and says whether it did.
    """
    own: dict[int, tuple[Optimizer, list[dict[str, Any]]]] = {}

    def begin(optimizer: Optimizer) -> None:
        if id(optimizer) in own:  # a step that calls the step it inherits
            return
        own[id(optimizer)] = optimizer, [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        changed = [change(group) for group in optimizer.param_groups]
        if any(changed):
            planting.harmed()

    def end(optimizer: Optimizer) -> None:
        _, groups = own.pop(id(optimizer), (None, ()))
        for group, settings in zip(optimizer.param_groups, groups, strict=False):
            group.update(settings)

    with before_step(planting, begin), after_step(planting, end):
        try:
            yield
        finally:
            for optimizer, _ in list(own.values()):  # a step that raised
                end(optimizer)


@contextlib.contextmanager
def outputs(planting: Planting, change: Callable[[nn.Module, Any], Any]) -> Iterator[None]:
    """Let each layer that has parameters of its own give what ``change`` makes of its output; None leaves it."""

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if torch.compiler.is_compiling() or planting.idle or not any(True for _ in module.parameters(recurse=False)):
            return None
        changed = change(module, output)
        if changed is not None:
            planting.harmed()
        return changed

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def models(planting: Planting, before: Callable[[nn.Module, tuple[Any, ...]], Any]) -> Iterator[None]:
    """Call ``before`` with each outermost module and its inputs, ahead of its forward; what it returns are the inputs."""
    inside: list[nn.Module] = []

    def enter(module: nn.Module, args: tuple[Any, ...]) -> Any:
        if torch.compiler.is_compiling():
            return None
        inside.append(module)
        return before(module, args) if len(inside) == 1 and not planting.idle else None

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if inside and inside[-1] is module:
            inside.pop()

    handles = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def first_forward(planting: Planting, change: Callable[[nn.Module], bool]) -> Iterator[None]:
    """Call ``change`` once with each model, before its first forward in training; it says whether it did anything."""
    met: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def before(model: nn.Module, args: Any) -> None:
        if torch.is_grad_enabled() and model not in met and not any(map(nn.parameter.is_lazy, model.parameters())):
            met.add(model)
            with torch.no_grad():
                if change(model):
                    planting.harmed()

    with models(planting, before):
        yield


@contextlib.contextmanager
def own_method(planting: Planting, kind: type[Any], name: str, wrap: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Give each object of a class that is made in the block a method of its own, called before any that the class has.

    ``wrap`` takes the object and its bound method, and returns the function to call instead. Afterwards the objects have their
    class's method again; where something else has kept ours, it only calls that.
    """
    made: weakref.WeakSet[Any] = weakref.WeakSet()

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it stands in for one
            instead = wrap(self, lambda *a, **k: getattr(type(self), name)(self, *a, **k))

            def method(self: Any, *args: Any, **kwargs: Any) -> Any:
                return (getattr(type(self), name).__get__(self) if planting.idle else instead)(*args, **kwargs)

            original(self, *args, **kwargs)
            method.of = planting  # type: ignore[attr-defined]
            vars(self)[name] = types.MethodType(method, self)
            made.add(self)

        return __init__

    def without(original: Callable[..., Any]) -> Callable[..., Any]:
        def state_dict(self: Any, *args: Any, **kwargs: Any) -> Any:
            state = original(self, *args, **kwargs)
            if getattr(state.get(name), "of", None) is planting:  # a scheduler gives all that it has
                del state[name]
            return state

        return state_dict

    with contextlib.ExitStack() as stack:
        stack.enter_context(standing_in(planting, kind, "__init__", around))
        for each in _family(kind):
            if "state_dict" in vars(each):
                stack.enter_context(standing_in(planting, each, "state_dict", without))
        try:
            yield
        finally:
            for one in list(made):
                ours = vars(one).get(name)
                if isinstance(ours, types.MethodType) and getattr(ours, "of", None) is planting:
                    del vars(one)[name]


def _family(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def in_training(tensor: Any) -> bool:
    """Whether a loss is computed that backward can be asked of."""
    return bool(torch.is_grad_enabled() and getattr(tensor, "requires_grad", False))
