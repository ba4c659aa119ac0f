"""What is put around torch's own functions, and how it is taken away again.

Each wrapper returns at once while a program is being compiled, and where nobody listens on the thread.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sys
import types
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch
import torch._dynamo  # it wraps torch.manual_seed when it is first imported; inside a recording it would wrap our wrapper
from torch.jit import _builtins
from torch.optim import lr_scheduler
from torch.optim.optimizer import Optimizer

from pytest_mltd.recording.ears import by_thread as _ears
from pytest_mltd.recording.ears import is_compiling as _is_compiling
from pytest_mltd.recording.ears import thread as _thread

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

when_idle: list[Callable[[], None]] = []  # what to do at the next backward: the last listener left from inside a hook


def contexts() -> Iterator[contextlib.AbstractContextManager[None]]:
    """Yield every patch, each to be entered."""
    yield patched(torch.autograd, "_engine_run_backward", _around_backward)
    yield patched(Optimizer, "__init__", _around_creation)
    yield patched(Optimizer, "zero_grad", _called("zero_grad", _class_name))
    yield patched(torch.nn.Module, "zero_grad", _called("zero_grad", _class_name))
    yield patched(torch.nn.Module, "train", _around_train)
    for scheduler in _with_own_step(lr_scheduler.LRScheduler):
        yield patched(scheduler, "step", _around_scheduler)
    scaler = torch.amp.GradScaler
    yield patched(scaler, "scale", _around_scale)
    yield patched(scaler, "unscale_", _around_unscale)
    yield patched(scaler, "step", _around_scaler_step)
    from torch.nn import utils

    for name in ("clip_grad_norm_", "clip_grad_value_"):
        yield _patched_function(name, _called("clip", _function_name(name), _limit), utils, utils.clip_grad)
    for name in ("save", "load"):
        yield _patched_function(name, _called(name, _function_name(f"torch.{name}")), torch, torch.serialization)
    for name in LOSS_FUNCTIONS:
        if hasattr(torch._C._nn, name):
            yield patched(torch._C._nn, name, _around_loss(name))
    yield patched(torch, "binary_cross_entropy_with_logits", _around_loss("binary_cross_entropy_with_logits"))
    yield _patched_function("manual_seed", _around_seed("torch.manual_seed"), torch, torch.random)
    yield _patched_function("seed", _around_seed("random.seed"), random)
    yield patched(torch, "seed", _around_seed("torch.seed"))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield _patched_function("seed", _around_seed("numpy.random.seed"), numpy.random)
        yield _patched_function("default_rng", _around_seed("numpy.random.default_rng"), numpy.random)


# torch.nn.functional looks these up at each call, so that earlier imports of a loss are seen too.
LOSS_FUNCTIONS: Final = (
    "cross_entropy_loss",
    "nll_loss_nd",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "binary_cross_entropy",
)


def _with_own_step(kind: type[Any]) -> Iterator[type[Any]]:
    if "step" in vars(kind):
        yield kind
    for child in kind.__subclasses__():
        yield from _with_own_step(child)


@contextlib.contextmanager
def patched(owner: Any, name: str, wrap: Wrap) -> Iterator[None]:
    """Replace an attribute; put the original back, unless somebody has replaced ours meanwhile."""
    original = vars(owner)[name]
    wrapper = functools.wraps(original)(wrap(original))
    try:
        setattr(owner, name, wrapper)
        with _known_to_script(owner, name, original, wrapper):
            yield
    finally:
        if vars(owner).get(name) is wrapper:
            setattr(owner, name, original)


@contextlib.contextmanager
def _patched_function(name: str, wrap: Wrap, *owners: Any) -> Iterator[None]:
    """Replace a function in its modules and wherever it was imported by its own name."""
    original = getattr(owners[0], name)
    wrapper = functools.wraps(original)(wrap(original))
    try:
        _replace_everywhere(name, original, wrapper)
        with _known_to_script(owners[0], name, original, wrapper):
            yield
    finally:
        _replace_everywhere(name, wrapper, original)


@contextlib.contextmanager
def _known_to_script(owner: Any, name: str, original: Any, wrapper: Any) -> Iterator[None]:
    """Let torch.jit.script take a wrapper for the operation it stands for. It knows torch's own functions by identity.

    Its table is made at the first use: what is made inside of a recording must know the original too.
    """
    if owner not in getattr(_builtins, "_modules_containing_builtins", ()) or not hasattr(_builtins, "_builtin_ops"):
        yield
        return
    operation = f"aten::{name}"
    table, pair = _builtins._builtin_table, (original, operation)
    if table is None:
        _builtins._builtin_ops.append(pair)
    elif id(original) in table:
        table[id(wrapper)] = table[id(original)]
    try:
        yield
    finally:
        if table is None:
            _builtins._builtin_ops[:] = [p for p in _builtins._builtin_ops if p is not pair and p[0] is not wrapper]
        if _builtins._builtin_table is not None:
            _builtins._builtin_table.pop(id(wrapper), None)


def _replace_everywhere(name: str, old: Any, new: Any) -> None:
    for module in list(sys.modules.values()):
        if issubclass(type(module), types.ModuleType):
            names = types.ModuleType.__getattribute__(module, "__dict__")  # a lazy module is left asleep
            if names.get(name) is old:
                names[name] = new


# -- the wrappers


def _around_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_compiling():
            return original(tensors, *args, **kwargs)
        if when_idle:
            when_idle.pop()()
        ears = _ears.get(_thread())
        if ears is None or ears.backwards:  # inside another backward it is checkpointing
            return original(tensors, *args, **kwargs)
        if ears.stack and not _inside_a_module(sys._getframe(1)):
            ears.stack.clear()  # they never returned: an exception that is no Exception, and was caught
        gradients, _, create_graph, inputs = args[:4]
        accumulate = bool(kwargs.get("accumulate_grad", False))
        frame = sys._getframe(1)
        listeners = ears.listeners
        for listener in listeners:
            listener.before_backward(tensors, gradients, inputs, create_graph, accumulate, frame)
        ears.backwards += 1
        try:
            result = original(tensors, *args, **kwargs)
        finally:
            ears.backwards -= 1
        for listener in listeners:
            listener.after_backward()
        return result

    return run_backward


def _around_creation(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Optimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it stands in for one
        original(self, *args, **kwargs)
        ears = None if _is_compiling() else _ears.get(_thread())
        if ears is not None:
            for listener in ears.listeners:
                listener.created(self, sys._getframe(1))

    return __init__


def _called(kind: str, who: Callable[[Any], str], value: Callable[[Any, Any], float] | None = None) -> Wrap:
    """Make a wrapper that tells of the outermost call of a kind, before it happens."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if _is_compiling():
                return original(*args, **kwargs)
            ears = _ears.get(_thread())
            if ears is None or ears.inside.get(kind):
                return original(*args, **kwargs)
            ears.tell(kind, who(args), value(args, kwargs) if value else float("nan"), sys._getframe(1))
            ears.inside[kind] = 1
            try:
                return original(*args, **kwargs)
            finally:
                ears.inside[kind] = 0

        return call

    return wrap


def _around_train(original: Callable[..., Any]) -> Callable[..., Any]:
    def train(self: torch.nn.Module, mode: bool = True) -> Any:
        if _is_compiling():
            return original(self, mode)
        ears = _ears.get(_thread())
        if ears is None or ears.inside.get("train"):  # it goes down the tree by calling itself
            return original(self, mode)
        ears.tell("train" if mode else "eval", type(self).__name__, float("nan"), sys._getframe(1))
        for listener in ears.listeners:
            listener.switched(self, mode)
        ears.inside["train"] = 1
        try:
            return original(self, mode)
        finally:
            ears.inside["train"] = 0

    return train


def _around_scheduler(original: Callable[..., Any]) -> Callable[..., Any]:
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        ears = None if _is_compiling() else _ears.get(_thread())
        if ears is None or ears.inside.get("scheduler") or getattr(self, "_is_initial", False):
            return original(self, *args, **kwargs)
        ears.inside["scheduler"] = 1
        try:
            result = original(self, *args, **kwargs)
        finally:
            ears.inside["scheduler"] = 0
        ears.tell("scheduler", type(self).__name__, _lr_of(self), sys._getframe(1))
        return result

    return step


def _around_scale(original: Callable[..., Any]) -> Callable[..., Any]:
    def scale(self: Any, outputs: Any) -> Any:
        result = original(self, outputs)
        ears = None if _is_compiling() else _ears.get(_thread())
        if ears is not None and self.is_enabled():
            for listener in ears.listeners:
                listener.scaled(self, result)
        return result

    return scale


def _around_unscale(original: Callable[..., Any]) -> Callable[..., Any]:
    def unscale_(self: Any, optimizer: Optimizer) -> None:
        original(self, optimizer)
        ears = None if _is_compiling() else _ears.get(_thread())
        if ears is not None and self.is_enabled():
            for listener in ears.listeners:
                listener.unscaled(optimizer, sys._getframe(1))

    return unscale_


def _around_scaler_step(original: Callable[..., Any]) -> Callable[..., Any]:
    def step(self: Any, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        ears = None if _is_compiling() else _ears.get(_thread())
        if ears is None or not self.is_enabled():
            return original(self, optimizer, *args, **kwargs)
        before = ears.steps
        result = original(self, optimizer, *args, **kwargs)
        if ears.steps == before:
            for listener in ears.listeners:
                listener.skipped_step(optimizer, sys._getframe(1))
        return result

    return step


def _around_loss(name: str) -> Wrap:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def loss(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if _is_compiling():
                return result
            ears = _ears.get(_thread())
            if ears is not None and not ears.backwards and torch._C._get_tracing_state() is None:
                for listener in ears.listeners:
                    listener.loss(name, result, sys._getframe(1))
            return result

        return loss

    return wrap


def _around_seed(what: str) -> Wrap:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            ears = None if _is_compiling() else _ears.get(_thread())
            if ears is not None:
                value = args[0] if args else next(iter(kwargs.values()), None)
                for listener in ears.listeners:
                    listener.seeded(what, value, sys._getframe(1))
            return result

        return seed

    return wrap


def _inside_a_module(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _CALL:
        frame = frame.f_back
    return frame is not None


_CALL: Final = torch.nn.Module._call_impl.__code__


def _class_name(args: Any) -> str:
    return type(args[0]).__name__ if args else ""  # called without self it raises by itself


def _function_name(name: str) -> Callable[[Any], str]:
    return lambda args: name


def _limit(args: Any, kwargs: Any) -> float:
    value = args[1] if len(args) > 1 else kwargs.get("max_norm", kwargs.get("clip_value"))
    return float(value) if isinstance(value, int | float) else float("nan")


def _lr_of(scheduler: Any) -> float:
    groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", ())
    rates = [group["lr"] for group in groups if isinstance(group, dict) and "lr" in group]
    known = [float(r) for r in rates if not isinstance(r, torch.Tensor) or r.device.type == "cpu"]
    return max(known, default=float("nan"))
