"""The two passes that find where a value was born that is not finite: `Finder` says when, `Tracer` says where."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode

from pytest_mltd.recording import lanes
from pytest_mltd.recording.checkpoints import Checkpoints
from pytest_mltd.recording.operations import Event, Operations, is_finite
from pytest_mltd.recording.recorder import Cut
from pytest_mltd.recording.sentinels import Sentinel


class Finder(Sentinel):
    """Ends the program at the first loss or gradient that is not finite; ``what`` says which of them it was.

    Args:
        replay: called in a process that was kept from a moment before, where the program goes on: with the step from which
            on to watch, the number of steps that are over there, and how to answer.
    """

    def __init__(self, replay: Callable[[int, int, Callable[[Any], None]], None]) -> None:
        super().__init__(self._end)
        self.checkpoints = Checkpoints()
        self._replay = replay
        self.what = ""
        self.ended_bad = False  # the last loss of torch's own functions was not finite, and nothing was made of it

    def loss(self, name: str, result: Any, frame: FrameType) -> None:
        if lanes.readable(result) and result.requires_grad:
            self.ended_bad = not (math.isfinite(result.item()) if result.numel() == 1 else is_finite(result))

    def before_backward(self, *event: Any) -> None:
        self.ended_bad = False
        super().before_backward(*event)

    def after_step(self, optimizer: Optimizer) -> None:
        super().after_step(optimizer)
        asked = self.checkpoints.take()
        if asked is not None:
            self._replay(asked[0], self.steps, asked[1])

    @property
    def since(self) -> int:
        """The step before the bad one."""
        return max(self.steps - 1, 0)

    def _end(self, what: str, tensors: list[Tensor]) -> None:
        self.what = what
        raise Cut(f"{what} not finite")


class Tracer(Sentinel):
    """Watches each operation from the step before the bad one on, and says where the value was born.

    Args:
        since: the number of the step from which on operations are watched; 0: from the beginning.
        after: how many losses were seen before, where no step is taken.
        losses: of the first pass, where it is known. Where the second is not the same, it is watched from there on.
        tell: called with this where the value was found, before the program is ended.
    """

    forwards = True  # so that the modules are known

    def __init__(
        self, since: int, after: int, losses: list[float], tell: Callable[[Tracer], None] | None = None
    ) -> None:
        super().__init__(self._end)
        self.birth: Event | None = None
        self.reaches = ""
        self.born_after = 0  # how many steps were over
        self._since, self._after = since, after
        self._expected = losses
        self._tell = tell
        self._operations = Operations()
        self._depth = 0

    def __enter__(self) -> Tracer:
        self._depth = len(_get_current_dispatch_mode_stack())
        if not self._since and not self._after:
            self._open()
        return self

    def __exit__(self, *error: object) -> None:
        # A program that was ended inside of a mode of its own has popped ours for it, and left its own.
        while len(stack := _get_current_dispatch_mode_stack()) > self._depth:
            if stack[-1] is self._operations:
                self._operations.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            else:
                _pop_mode()

    def before_backward(self, *event: Any) -> None:
        super().before_backward(*event)
        seen = len(self.losses)
        if (self._after and seen >= self._after) or self._differs():
            self._open()

    def before_step(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        super().before_step(optimizer, closure, frame)
        if self._since and self.steps >= self._since:
            self._open()
        self._operations.stepping = not closure

    def after_step(self, optimizer: Optimizer) -> None:
        super().after_step(optimizer)
        self._operations.stepping = False

    def go_on(self, steps: int) -> None:
        """Begin in a program of which so many steps are over."""
        self.steps = steps
        if steps >= self._since:
            self._open()

    def look_back(self) -> None:
        """Take the last value that was not finite for the broken one, where the program ended by itself."""
        self.birth, self.reaches, self.born_after = self._operations.behind_last(), "the last loss", self.steps

    def _end(self, what: str, tensors: list[Tensor]) -> None:
        births = [b for t in tensors if (b := self._operations.behind(t)) is not None]
        self._close()
        if births and self.birth is None:
            self.born_after = self.steps
            self.birth = min(births, key=lambda e: (e.outside, e.intended, e.index))
        self.reaches = self.reaches or what
        if self._tell is not None:
            self._tell(self)
        raise Cut(f"{what} not finite")

    def _open(self) -> None:
        if not self.reaches and self._operations not in _get_current_dispatch_mode_stack():
            self._operations.__enter__()  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        if _get_current_dispatch_mode_stack()[-1:] == [self._operations]:
            self._operations.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _differs(self) -> bool:
        """Whether the loss is not that of the first pass: then the bad step may be another, too."""
        now, at = self.losses[-1:], len(self.losses) - 1
        return bool(self._expected and now) and now != self._expected[at : at + 1]
