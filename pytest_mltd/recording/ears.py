"""Who listens on which thread. A recording is a `Listener`; it hears the thread it joined from, and no other.

Another thread's gradients may be freed while they are read. Nothing here touches torch: `patches` and `hooks` do, and tell
the ears.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

thread = threading.get_ident
is_compiling = torch.compiler.is_compiling


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

    def logged(self, name: str, value: float) -> None:
        """The program gave a number to its own logger."""

    def entered(self, module: Any, args: Any, frame: FrameType) -> None:
        """A module is called outside of every other."""

    def left(self, module: Any, kwargs: Any, output: Any, above: list[Any], frame: FrameType) -> None:
        """A module has returned; ``above`` are those still running, the outermost first."""


class Ears:
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


by_thread: dict[int, Ears] = {}


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Let no one hear what the calling thread does in the block."""
    ident = thread()
    ears = by_thread.pop(ident, None)
    try:
        yield
    finally:
        if ears is not None:
            by_thread[ident] = ears


def _forget_in_child() -> None:
    """Stay deaf in a forked child: it has this thread's identity, and the parent's open file."""
    by_thread.clear()


os.register_at_fork(after_in_child=_forget_in_child)
