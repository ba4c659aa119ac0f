"""The one place that hooks into torch: one installed set for all recordings of the process, removed with the last of them.

A recording is a `Listener`. It hears the thread it joined from, and no other: another thread's gradients may be freed while
they are read. Every hook returns at once while a program is being compiled, and passes through in forked children.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch
import torch._dynamo  # it wraps torch.manual_seed when it is first imported; inside a recording it would wrap our wrapper
from torch.jit import _builtins
from torch.nn.modules import module as nn_module
from torch.optim import lr_scheduler
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

_is_compiling = torch.compiler.is_compiling
_thread = threading.get_ident

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Listener:
    """What may be heard. Each method here does nothing; a recording overrides those it wants."""

    forwards = False  # whether module hooks are wanted
    last = False  # whether to be told after all others

    def created(self, optimizer: Optimizer, frame: FrameType) -> None:
        """An optimizer was made."""

    def before_backward(
        self, tensors: Any, gradients: Any, inputs: Any, create_graph: bool, accumulate: bool, frame: FrameType
    ) -> None:
        """A backward begins; ``accumulate`` is False for `torch.autograd.grad`."""

    def after_backward(self) -> None:
        """The backward is through. Not called when it raised."""

    def before_step(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        """An outermost step begins, its closure (if it has one) not yet called."""

    def after_step(self, optimizer: Optimizer) -> None:
        """The outermost step is through."""

    def skipped_step(self, optimizer: Optimizer, frame: FrameType) -> None:
        """A GradScaler left the step out."""

    def scaled(self, scaler: Any, outputs: Any) -> None:
        """A GradScaler has multiplied these outputs by its scale."""

    def unscaled(self, optimizer: Optimizer, frame: FrameType) -> None:
        """A GradScaler has divided the optimizer's gradients by its scale."""

    def called(self, kind: str, who: str, value: float, frame: FrameType) -> None:
        """One of the calls that are kept in order."""

    def switched(self, module: torch.nn.Module, mode: bool) -> None:
        """A module is put into train or eval mode, with all it holds."""

    def loss(self, name: str, result: Any, frame: FrameType) -> None:
        """One of torch's own loss functions has returned."""

    def seeded(self, what: str, value: Any, frame: FrameType) -> None:
        """A random state was seeded, or a generator made."""

    def entered(self, module: Any, args: Any, frame: FrameType) -> None:
        """A module is called outside of every other."""

    def left(self, module: Any, kwargs: Any, output: Any, above: list[Any], frame: FrameType) -> None:
        """A module has returned; ``above`` are those still running, the outermost first."""


class _Ears:
    """Who listens on one thread, and how deep inside of what it is."""

    __slots__ = ("backwards", "inside", "listeners", "sampling", "stack", "steps", "watched")

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self.watched: tuple[Listener, ...] = ()  # those that want forwards
        self.sampling = False  # whether one of them wants each module's output now
        self.stack: list[Any] = []  # modules being called
        self.inside: dict[str, int] = {}  # how deep in a kind of call
        self.backwards = 0
        self.steps = 0  # outermost steps that were finished, to tell which a scaler left out

    def tell(self, kind: str, who: str, value: float, frame: FrameType) -> None:
        for listener in self.listeners:
            listener.called(kind, who, value, frame)


_ears: dict[int, _Ears] = {}
_installed: contextlib.ExitStack | None = None
_with_modules = False
_idle = False  # the last listener left from inside a hook; what is installed goes at the next backward or exit
_lock = threading.RLock()


def join(listener: Listener) -> None:
    """Begin to hear the calling thread."""
    with _lock:
        try:
            ears = _ears.setdefault(_thread(), _Ears())
            ears.listeners = tuple(sorted((*ears.listeners, listener), key=lambda one: one.last))
            _sort(ears)
            _install(modules=listener.forwards)
        except BaseException:  # Ctrl-C among them
            leave(listener)
            raise


def leave(listener: Listener, soon: bool = False) -> None:
    """Stop to hear. The last one out removes all hooks; with ``soon`` (from inside a hook) at the next chance."""
    global _idle
    with _lock:
        for ident, ears in list(_ears.items()):
            ears.listeners = tuple(one for one in ears.listeners if one is not listener)
            _sort(ears)
            if not ears.listeners:
                del _ears[ident]
        if not _ears:
            if soon:
                _idle = True
            else:
                _uninstall()


def sample(wanted: bool) -> None:
    """Say whether the calling thread's listeners want each module's output from now on; any one's wish counts."""
    ears = _ears.get(_thread())
    if ears is not None:
        ears.sampling = wanted or any(getattr(one, "sampling", False) for one in ears.watched)


def in_backward() -> bool:
    """Whether the calling thread is inside a backward: an optimizer may step there, parameter by parameter."""
    ears = _ears.get(_thread())
    return ears is not None and ears.backwards > 0


def installed() -> bool:
    """Whether any hook or patch is in place."""
    return _installed is not None


@contextlib.contextmanager
def _patched(owner: Any, name: str, wrap: Wrap) -> Iterator[None]:
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


def _sort(ears: _Ears) -> None:
    ears.watched = tuple(one for one in ears.listeners if one.forwards)
    ears.sampling = any(getattr(one, "sampling", False) for one in ears.watched)


def _install(modules: bool) -> None:
    global _installed, _with_modules, _idle
    _idle = False
    if _installed is None:
        _installed = contextlib.ExitStack()
        for context in _contexts():
            _installed.enter_context(context)
        _installed.callback(register_optimizer_step_pre_hook(_step_begins).remove)
        _installed.callback(register_optimizer_step_post_hook(_step_ends).remove)
    if modules and not _with_modules:
        for context in _module_contexts():
            _installed.enter_context(context)
        _with_modules = True


@contextlib.contextmanager
def _module_hooks() -> Iterator[None]:
    handles: list[Any] = []
    try:
        handles.append(nn_module.register_module_forward_pre_hook(_module_begins))
        handles.append(nn_module.register_module_forward_hook(_module_ends, with_kwargs=True, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
            nn_module._global_forward_hooks_with_kwargs.pop(handle.id, None)  # remove() forgets this table (torch 2.13)


def _module_contexts() -> Iterator[contextlib.AbstractContextManager[None]]:
    yield _module_hooks()
    if hasattr(nn_module, "_has_any_global_hook"):
        yield _patched(nn_module, "_has_any_global_hook", _around_global_hooks)


def _around_global_hooks(original: Callable[..., bool]) -> Callable[..., Any]:
    """A compiled module warns of global hooks, and a warning may be an error: let it warn of those that are not ours."""

    def _has_any_global_hook() -> bool:
        theirs = [
            hook
            for table in (nn_module._global_forward_pre_hooks, nn_module._global_forward_hooks)
            for hook in table.values()
            if hook is not _module_begins and hook is not _module_ends
        ]
        return bool(theirs or nn_module._global_backward_pre_hooks or nn_module._global_backward_hooks)

    return _has_any_global_hook


def _uninstall() -> None:
    global _installed, _with_modules, _idle
    if _installed is not None:
        stack, _installed = _installed, None
        _with_modules = _idle = False
        stack.close()


def _contexts() -> Iterator[contextlib.AbstractContextManager[None]]:
    yield _patched(torch.autograd, "_engine_run_backward", _around_backward)
    yield _patched(Optimizer, "__init__", _around_creation)
    yield _patched(Optimizer, "zero_grad", _called("zero_grad", _class_name))
    yield _patched(torch.nn.Module, "zero_grad", _called("zero_grad", _class_name))
    yield _patched(torch.nn.Module, "train", _around_train)
    for scheduler in _with_own_step(lr_scheduler.LRScheduler):
        yield _patched(scheduler, "step", _around_scheduler)
    scaler = torch.amp.GradScaler
    yield _patched(scaler, "scale", _around_scale)
    yield _patched(scaler, "unscale_", _around_unscale)
    yield _patched(scaler, "step", _around_scaler_step)
    from torch.nn import utils

    for name in ("clip_grad_norm_", "clip_grad_value_"):
        yield _patched_function(name, _called("clip", _function_name(name), _limit), utils, utils.clip_grad)
    for name in ("save", "load"):
        yield _patched_function(name, _called(name, _function_name(f"torch.{name}")), torch, torch.serialization)
    for name in LOSS_FUNCTIONS:
        if hasattr(torch._C._nn, name):
            yield _patched(torch._C._nn, name, _around_loss(name))
    yield _patched(torch, "binary_cross_entropy_with_logits", _around_loss("binary_cross_entropy_with_logits"))
    yield _patched_function("manual_seed", _around_seed("torch.manual_seed"), torch, torch.random)
    yield _patched_function("seed", _around_seed("random.seed"), random)
    yield _patched(torch, "seed", _around_seed("torch.seed"))
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


# -- what is put around torch's own functions


def _around_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_compiling():
            return original(tensors, *args, **kwargs)
        if _idle:
            _uninstall()
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


# -- hooks that torch offers itself


def _step_begins(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if _is_compiling():
        return
    ears = _ears.get(_thread())
    if ears is None:
        return
    depth = ears.inside.get("step", 0)
    if depth and not _inside_another_step(sys._getframe(1)):
        depth = 0  # the step before this one raised, and its post-hook was never called
    ears.inside["step"] = depth + 1
    if depth == 0:
        closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        for listener in ears.listeners:
            listener.before_step(optimizer, closure, sys._getframe(1))


def _step_ends(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if _is_compiling():
        return
    ears = _ears.get(_thread())
    if ears is None or not ears.inside.get("step"):
        return
    ears.inside["step"] -= 1
    if ears.inside["step"] == 0:
        ears.steps += 1
        for listener in ears.listeners:
            listener.after_step(optimizer)


_raised: Final = (
    object()
)  # torch leaves the keywords out of the call after an exception (2.13), so that a position is missing


def _module_begins(module: Any, args: Any) -> None:
    if _is_compiling():
        return
    ears = _ears.get(_thread())
    if ears is None or ears.backwards:  # inside a backward checkpointing computes again what was seen before
        return
    stack = ears.stack
    stack.append(module)
    if len(stack) == 1:
        for listener in ears.watched:
            listener.entered(module, args, sys._getframe(1))


def _module_ends(module: Any, args: Any, kwargs: Any, output: Any = _raised) -> None:
    if _is_compiling():
        return
    ears = _ears.get(_thread())
    if ears is None or ears.backwards:
        return
    stack = ears.stack
    if not stack:
        return
    if stack.pop() is not module:  # some did not return: an exception that is no Exception
        while stack and stack.pop() is not module:
            pass
    if output is _raised:
        return
    if (ears.sampling or not stack) and torch._C._get_tracing_state() is None:
        for listener in ears.watched:
            listener.left(module, kwargs, output, stack, sys._getframe(1))


def _inside_another_step(frame: FrameType | None) -> bool:
    """Whether, beyond the step that this frame runs, another one is up the stack."""
    found = 0
    while frame is not None and found < 2:
        code = frame.f_code
        if code.co_name == "wrapper" and code.co_filename == _OPTIMIZER_FILE:
            found += 1
        frame = frame.f_back
    return found == 2


def _inside_a_module(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code is not _CALL:
        frame = frame.f_back
    return frame is not None


_CALL: Final = torch.nn.Module._call_impl.__code__
_OPTIMIZER_FILE: Final = Optimizer.__init__.__code__.co_filename


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


def _forget_in_child() -> None:
    """Stay deaf in a forked child: it has this thread's identity, and the parent's open file."""
    _ears.clear()


os.register_at_fork(after_in_child=_forget_in_child)
