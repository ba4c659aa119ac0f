"""What the forward of a copy must not reach: files, processes, logs, other modules, and what its code keeps in globals.

A copy that writes or starts something is refused before it does; what it changes in its own code's globals, class attributes
and generators is put back. Imported once torch is.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Container, Iterator
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

_MOST_FUNCTIONS: Final = 500  # of a model's code whose globals are looked at; a guess
_MOST_ITEMS: Final = 10_000  # values that are put back; a guess
_MOST_BYTES: Final = 16 << 20  # of tensors and arrays that are put back; a guess
_MOST_SECONDS: Final = 5.0  # of one forward that nothing is known of; a guess
_DEEPEST: Final = 3  # containers in containers; a guess


class Refused(BaseException):
    """The copy was about to do what it must not. Not an `Exception`, so that a forward's own handlers let it through."""


@contextlib.contextmanager
def isolated(model: nn.Module, own: Container[int], limited: bool = False) -> Iterator[None]:
    """Run a model's forward in the block.

    Args:
        model: the copy.
        own: the ids of the modules that may be run: those that were copied.
        limited: end a forward that waits for something, where that can be done: on the main thread of a Unix.

    Raises:
        Refused: it was about to write a file, to start a process, to run a module that is not part of it, or took too long.
    """
    disabled = logging.root.manager.disable
    with contextlib.ExitStack() as around:
        around.callback(logging.disable, disabled)
        logging.disable(sys.maxsize)
        around.enter_context(_code_of(model).kept())
        around.callback(nn_module.register_module_forward_pre_hook(_only(own)).remove)
        around.enter_context(_nothing_written())
        if limited:
            around.enter_context(_ended())
        yield


def _only(own: Container[int]) -> Callable[[nn.Module, Any], None]:
    thread = threading.get_ident()

    def refuse(module: nn.Module, args: Any) -> None:
        states = (*module._parameters.values(), *module._buffers.values())
        if id(module) not in own and threading.get_ident() == thread and any(t is not None for t in states):
            raise Refused(f"it runs a {type(module).__name__} that is not part of it, of which there is no copy")

    return refuse


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """Refuse what is not over after some seconds. A program that uses the alarm itself is left to it."""
    free = (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )
    if not free:
        yield
        return

    running = True

    def refuse(number: int, frame: Any) -> None:
        if running:
            raise Refused(f"it was not through after {_MOST_SECONDS:g} s")

    signal.signal(signal.SIGALRM, refuse)
    try:
        # Again and again: what the first raises is lost where it meets a finalizer, or a program that catches everything.
        signal.setitimer(signal.ITIMER_REAL, _MOST_SECONDS, _MOST_SECONDS / 10)
        try:
            yield
        finally:
            running = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


# -- files and processes


@contextlib.contextmanager
def _nothing_written() -> Iterator[None]:
    global _listening, _guarded
    if not _listening:
        sys.addaudithook(_heard)  # there is no way to take it back; outside of the block it returns at once
        _listening = True
    serialization: Any = torch.serialization
    opened = serialization._open_zipfile_writer  # it writes in C++, of which Python hears nothing
    before, _guarded = _guarded, threading.get_ident()

    def refuse(*args: Any) -> Any:
        if threading.get_ident() != _guarded:
            return opened(*args)
        raise Refused("it saves a file")

    try:
        serialization._open_zipfile_writer = refuse
        yield
    finally:
        _guarded = before
        serialization._open_zipfile_writer = opened


_listening = False
_guarded = 0  # the thread that must not write


def _heard(event: str, args: Any) -> None:
    if not _guarded or threading.get_ident() != _guarded:
        return
    if event == "open":
        path, mode, flags = args
        if "__pycache__" not in str(path) and (flags & _WRITING or set(mode or "") & set("wax+")):
            raise Refused(f"it writes to {str(path)!r:.60}")
    elif event in _FORBIDDEN:
        raise Refused(f"it calls {event}")


_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FORBIDDEN: Final = frozenset(
    "os.remove os.rename os.mkdir os.rmdir os.link os.symlink os.truncate os.chdir os.system os.fork os.exec os.posix_spawn "
    "os.putenv os.unsetenv os.kill subprocess.Popen shutil.rmtree socket.connect socket.bind socket.sendto sqlite3.connect "
    "builtins.input".split()
)


# -- what code keeps outside of the model


class _Kept:
    """What is put back after the block."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._undo: list[Callable[[], None]] = []
        self._items, self._bytes = _MOST_ITEMS, _MOST_BYTES

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        try:
            yield
        finally:
            for undo in reversed(self._undo):
                undo()

    def names(self, there: dict[str, Any], names: Iterator[str]) -> None:
        """Keep what some names of a namespace stand for."""
        missing = object()
        before = {name: there.get(name, missing) for name in names}

        def undo() -> None:
            for name, value in before.items():
                if value is missing:
                    there.pop(name, None)
                elif there.get(name, missing) is not value:
                    there[name] = value

        self._undo.append(undo)
        for value in before.values():
            self.value(value, 0)

    def class_of(self, kind: type) -> None:
        """Keep the attributes of a class."""
        before = dict(vars(kind))

        def undo() -> None:
            for name, value in before.items():
                if vars(kind).get(name) is not value:
                    with contextlib.suppress(AttributeError, TypeError):
                        setattr(kind, name, value)
            for name in set(vars(kind)) - set(before):
                with contextlib.suppress(AttributeError, TypeError):
                    delattr(kind, name)

        self._undo.append(undo)
        for value in before.values():
            self.value(value, 0)

    def value(self, value: Any, depth: int) -> None:
        """Keep what a value holds, where that can be put back."""
        kind = type(value)
        if id(value) in self._seen or depth > _DEEPEST or self._items <= 0:
            return
        self._seen.add(id(value))
        self._items -= 1
        if kind in _COPIED and len(value) <= self._items:
            self._container(value, depth)
        elif kind is Tensor:
            self._tensor(value)
        elif kind is np.ndarray:
            self._array(value)
        elif kind in (torch.Generator, np.random.RandomState):
            self._undo.append(functools.partial(value.set_state, value.get_state()))
        elif kind is np.random.Generator:
            self._undo.append(functools.partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        elif kind is random.Random:
            self._undo.append(functools.partial(value.setstate, value.getstate()))
        elif _is_of_user(kind) and not issubclass(kind, (nn.Module, types.ModuleType, type)):
            self.value(getattr(value, "__dict__", None), depth)

    def _container(self, value: Any, depth: int) -> None:
        before = value.copy()
        items = list(value.values()) if hasattr(value, "values") else list(value)

        def undo() -> None:
            now = list(value.values()) if hasattr(value, "values") else list(value)
            if len(now) == len(items) and all(a is b for a, b in zip(now, items, strict=True)):
                return
            value.clear()
            value.update(before) if hasattr(value, "update") else value.extend(before)

        self._undo.append(undo)
        for item in items:
            self.value(item, depth + 1)

    def _tensor(self, value: Tensor) -> None:
        size = value.numel() * value.element_size()
        if (
            value.is_inference()
            or value.device.type == "meta"
            or value.layout is not torch.strided
            or not self._may(size)
        ):
            return
        version, copy = value._version, value.detach().clone()

        def undo() -> None:
            if value._version != version and value.shape == copy.shape:
                with torch.no_grad():
                    value.copy_(copy)

        self._undo.append(undo)

    def _array(self, value: np.ndarray[Any, Any]) -> None:
        if value.flags.writeable and not value.dtype.hasobject and self._may(value.nbytes):
            self._undo.append(functools.partial(np.copyto, value, value.copy()))

    def _may(self, size: int) -> bool:
        self._bytes -= size
        return self._bytes >= 0


_COPIED: Final = frozenset({list, dict, set, deque})


def _code_of(model: nn.Module) -> _Kept:
    """Return what the code of a model's own classes, and the functions which it calls, keep outside of it."""
    kept = _Kept()
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if _is_of_user(kind)}
    waiting = [f for kind in kinds for value in vars(kind).values() if (f := _function(value)) is not None]
    waiting += [
        f for module in model.modules() for value in vars(module).values() if (f := _function(value)) is not None
    ]
    seen: set[types.FunctionType] = set()
    for kind in kinds:
        kept.class_of(kind)
    while waiting and len(seen) < _MOST_FUNCTIONS:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        there = function.__globals__
        names = sorted(_names_in(function.__code__))
        kept.names(there, iter(names))
        cells = [_content(cell) for cell in function.__closure__ or ()]
        for value in cells:
            kept.value(value, 0)
        found = [there.get(name) for name in names] + cells
        waiting += [f for value in found if (f := _function(value)) is not None and _is_of_user(f)]
    return kept


def _names_in(code: types.CodeType) -> set[str]:
    inner = [_names_in(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def _function(value: Any) -> types.FunctionType | None:
    if type(value) in (staticmethod, classmethod):
        value = value.__func__
    return value if type(value) is types.FunctionType else None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None


def _is_of_user(thing: Any) -> bool:
    """Whether a class or function is of the program or of a package for training, not of Python, torch or numpy."""
    home = str(getattr(thing, "__module__", "")).partition(".")[0]
    return home not in ("torch", "numpy") and home not in sys.stdlib_module_names
