"""Validation losses: what torch's own loss functions return without gradient or in eval mode.

A loss of a module in eval mode that still has a gradient may be training (a net that was never put back into train mode): it
waits, and is dropped when a backward follows.
"""

from __future__ import annotations

from typing import Any

from pytest_mltd.core.traces import Fact
from pytest_mltd.recording.spool import Spool

EVAL, TRAIN, UNSEEN = 0, 1, -1


class Validation:
    """Collects validation losses, and the places of validation forwards whose loss was not seen."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: list[tuple[Any, ...]] = []
        self._forward: tuple[str, str, int] | None = None  # root, site, step of a forward whose loss has not come yet
        self._seen: set[str] = set()

    @property
    def waits(self) -> bool:
        """Whether something is undecided, so that a training forward must be told too."""
        return bool(self._waiting) or self._forward is not None

    def forward(self, root: str, site: str, step: int, mode: int, grad: bool) -> None:
        """A root was called."""
        if mode == TRAIN and grad:
            self.training_again()
            self.end()
        elif mode == EVAL and not grad:
            self._forward = (root, site, step)

    def loss(self, step: int, stream: int, value: Any, mode: int, grad: bool) -> None:
        """One of torch's losses has returned a number."""
        if not grad:
            self._spool.rows["val"].append((step, stream, value))
            self._loss_came()
        elif mode == EVAL:
            self._waiting.append((step, stream, value))
            self._loss_came()

    def backward(self) -> None:
        """A backward begins: what waited was training."""
        self._waiting.clear()

    def training_again(self) -> None:
        """The program went back to train mode, and no backward came: what waited was validation."""
        if self._waiting:
            self._spool.rows["val"] += self._waiting
            self._waiting = []

    def end(self) -> None:
        """Training goes on, or the recording ends: a validation forward that had no loss until now will have none."""
        if self._forward is not None:
            root, site, step = self._forward
            self._forward = None
            if site not in self._seen:
                self._seen.add(site)
                details = {"site": site, "text": f"validation forward at {site} computed no loss torch knows"}
                self._spool.facts.append(Fact(kind="validation_unseen", step=step, who=root, details=details))

    def _loss_came(self) -> None:
        if self._forward is not None:
            self._seen.add(self._forward[1])
            self._forward = None
