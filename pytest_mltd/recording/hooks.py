"""The one place that hooks into torch: one installed set for all recordings of the process, removed with the last of them.

A recording is a `Listener`. It hears the thread it joined from, and no other: another thread's gradients may be freed while
they are read. Every hook returns at once while a program is being compiled, and passes through in forked children.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import torch
from torch.nn.modules import module as nn_module
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from pytest_mltd.recording import patches, tapping
from pytest_mltd.recording.ears import Ears, Listener
from pytest_mltd.recording.ears import by_thread as _ears
from pytest_mltd.recording.ears import is_compiling as _is_compiling
from pytest_mltd.recording.ears import thread as _thread

__all__ = ["Listener", "in_backward", "installed", "join", "leave", "sample"]

_installed: contextlib.ExitStack | None = None
_with_modules = False
_lock = threading.RLock()


def join(listener: Listener) -> None:
    """Begin to hear the calling thread."""
    with _lock:
        try:
            ears = _ears.setdefault(_thread(), Ears())
            ears.listeners = tuple(sorted((*ears.listeners, listener), key=lambda one: one.last))
            _sort(ears)
            _install(modules=listener.forwards)
        except BaseException:  # Ctrl-C among them
            leave(listener)
            raise


def leave(listener: Listener, soon: bool = False) -> None:
    """Stop to hear. The last one out removes all hooks; with ``soon`` (from inside a hook) at the next chance."""
    with _lock:
        for ident, ears in list(_ears.items()):
            ears.listeners = tuple(one for one in ears.listeners if one is not listener)
            _sort(ears)
            if not ears.listeners:
                del _ears[ident]
        if not _ears:
            if soon:
                patches.when_idle[:] = [_uninstall]
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


def running_modules() -> tuple[torch.nn.Module, ...]:
    """Return the modules that the calling thread is inside of, the outermost first; none where no listener wants forwards."""
    ears = _ears.get(_thread())
    return () if ears is None else tuple(ears.stack)


def installed() -> bool:
    """Whether any hook or patch is in place."""
    return _installed is not None


def _sort(ears: Ears) -> None:
    ears.watched = tuple(one for one in ears.listeners if one.forwards)
    ears.sampling = any(getattr(one, "sampling", False) for one in ears.watched)


def _install(modules: bool) -> None:
    global _installed, _with_modules
    patches.when_idle.clear()
    if _installed is None:
        _installed = contextlib.ExitStack()
        for context in patches.contexts():
            _installed.enter_context(context)
        _installed.enter_context(tapping.taps())
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
        yield patches.patched(nn_module, "_has_any_global_hook", _around_global_hooks)


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
    global _installed, _with_modules
    patches.when_idle.clear()
    if _installed is not None:
        stack, _installed = _installed, None
        _with_modules = False
        stack.close()


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
    if len(stack) == 1 and torch._C._get_tracing_state() is None:
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


_OPTIMIZER_FILE: Final = Optimizer.__init__.__code__.co_filename
