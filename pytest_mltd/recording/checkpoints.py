"""A training kept as it was a moment ago: a forked child that waits, and goes on from there when it is asked to.

It holds all there is: weights, generators, the place in the data, what a closure remembers. Forks are taken so seldom that they
cost a few percent, and only where a fork can go on: on Linux, without an accelerator, other threads, worker processes or a
process group.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

import torch

from pytest_mltd.recording.programs import has_process_group

_SECONDS: Final = (
    1.0  # between two forks; with what is copied when it changes one costs 30 to 80 milliseconds, measured
)
_PATIENCE: Final = 30.0  # seconds to wait for a child beyond ten times what it has to do again; a guess


class Checkpoints:
    """Takes a fork now and then. `ask` lets the last one go on in the past."""

    def __init__(self) -> None:
        self._child: tuple[int, int, int] | None = None  # process, where it is told, where it answers
        self._last = time.perf_counter()

    def take(self) -> tuple[int, Callable[[Any], None]] | None:
        """Fork if it is time. The parent gets None; the child waits, and gets what it was asked and how to answer.

        The answer ends the child. It must not return to whoever called the training.
        """
        now = time.perf_counter()
        if now - self._last < _SECONDS or not _can_fork():
            return None
        self.drop()
        told, tell = os.pipe()
        heard, answer = os.pipe()
        with warnings.catch_warnings():  # Python 3.12 warns of threads; torch's own are not used by the child
            warnings.simplefilter("ignore")
            process = os.fork()
        if process:
            os.close(told)
            os.close(answer)
            self._child = process, tell, heard
            self._last = time.perf_counter()
            return None
        os.close(tell)
        os.close(heard)
        return _asked(told), lambda message: _answer(answer, message)

    def ask(self, number: int) -> Any:
        """Let the last child go on, with a number for it; return its answer, None where there is none."""
        if self._child is None:
            return None
        _, tell, heard = self._child
        with contextlib.suppress(OSError, ValueError):
            os.write(tell, b"%d\n" % number)
            return json.loads(_read(heard, _PATIENCE + 10 * (time.perf_counter() - self._last)))
        return None

    def drop(self) -> None:
        """End the child that waits."""
        if self._child is not None:
            process, tell, heard = self._child
            self._child = None
            os.close(tell)
            os.close(heard)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


def _can_fork() -> bool:
    accelerated = torch.cuda.is_initialized() or torch.xpu.is_initialized()  # type: ignore[no-untyped-call]
    alone = threading.active_count() == 1 and not multiprocessing.active_children() and not has_process_group()
    return sys.platform == "linux" and hasattr(os, "fork") and alone and not accelerated


def _asked(told: int) -> int:
    """Wait in the child until it is asked; end it where its parent is gone."""
    try:
        number = int(_read(told, None))
    except BaseException:
        os._exit(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in (1, 2):
        os.dup2(nowhere, output)
    torch.set_num_threads(1)  # the threads of the parent are not here
    return number


def _answer(where: int, message: Any) -> None:
    with contextlib.suppress(BaseException):
        left = json.dumps(message, default=str).encode() + b"\n"
        while left:
            left = left[os.write(where, left) :]
    os._exit(0)


def _read(pipe: int, seconds: float | None) -> bytes:
    """Return a line. An empty one: there is nobody at the other end any more, or no time left."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], seconds)
        part = os.read(pipe, 1 << 16) if ready else b""
        if not part:
            return b""
        line += part
    return line
