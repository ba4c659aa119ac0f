"""Listeners that notice when a loss or the gradients of a step are no longer finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from pytest_mltd.recording import lanes
from pytest_mltd.recording.hooks import Listener

_SKIPPED: Final = 20  # steps that a scaler which goes on halving has long found its scale in; a guess
_IN_A_ROW: Final = 3  # losses that are not finite before a program that takes no step is stopped; a guess


class Sentinel(Listener):
    """Looks at each loss and at the gradients that each step uses, and calls ``found(what, tensors)`` at bad ones.

    A scaled loss that is infinite, and gradients for which a GradScaler leaves the step out, are that scaler's business, unless
    it leaves out twenty in a row.
    """

    last = True  # the recordings take the event first

    def __init__(self, found: Callable[[str, list[Tensor]], None]) -> None:
        self.steps = 0
        self.losses: list[float] = []
        self._found = found
        self._scaled: list[Any] = []
        self._skipped = 0  # in a row

    def scaled(self, scaler: Any, outputs: Any) -> None:
        self._scaled = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

    def before_backward(
        self, tensors: Any, gradients: Any, inputs: Any, create_graph: bool, accumulate: bool, frame: FrameType
    ) -> None:
        if not accumulate:  # torch.autograd.grad: what comes of it will be in a loss
            return
        losses = [t for t in tensors if lanes.readable(t)]
        values = [_total(t) for t in losses]
        self.losses += values[:1]
        wrong = [t for t, v in zip(losses, values, strict=True) if not math.isfinite(v) and self._counts(t, v)]
        if wrong:
            self._found("loss", wrong)

    def before_step(self, optimizer: Optimizer, closure: bool, frame: FrameType) -> None:
        wrong = nonfinite_gradients(optimizer)
        if wrong:
            self._found("gradients", wrong)

    def after_step(self, optimizer: Optimizer) -> None:
        self.steps += 1
        self._skipped = 0

    def skipped_step(self, optimizer: Optimizer, frame: FrameType) -> None:
        self._skipped += 1
        if self._skipped >= _SKIPPED and (wrong := nonfinite_gradients(optimizer)):
            self._found("gradients", wrong)

    def _counts(self, loss: Tensor, value: float) -> bool:
        """Whether a loss is bad indeed: a sum may overflow where no part does, and a scaled loss where the loss does not."""
        if any(loss is one for one in self._scaled):
            return math.isnan(value)
        return loss.numel() == 1 or not bool(torch.isfinite(loss.detach()).all())


class Stopper(Sentinel):
    """Raises what ``error`` gives out of the first step that used a loss or gradients that are not finite.

    A program that looks for itself, and leaves such a step out, goes on. ``raised`` is what was raised.
    """

    def __init__(self, error: Callable[[str], BaseException]) -> None:
        super().__init__(self._note)
        self.raised: BaseException | None = None
        self._error = error
        self._what = ""
        self._in_a_row = 0

    def before_backward(self, *event: Any) -> None:
        before, self._what = self._in_a_row, ""
        self._look(super().before_backward, *event)
        self._in_a_row = before + 1 if self._what else 0
        if self._in_a_row == _IN_A_ROW and not self.steps:
            self._raise("stopped: the loss is not finite, and the program takes no step")

    def before_step(self, *event: Any) -> None:
        self._look(super().before_step, *event)

    def skipped_step(self, *event: Any) -> None:
        self._look(super().skipped_step, *event)

    def after_step(self, optimizer: Optimizer) -> None:
        super().after_step(optimizer)
        if self._what:
            verb = "is" if self._what == "loss" else "are"
            self._raise(f"stopped at step {self.steps - 1}: the {self._what} {verb} not finite")

    def _raise(self, why: str) -> None:
        self.raised = self._error(why)
        raise self.raised

    def _look(self, at: Callable[..., None], *event: Any) -> None:
        """Look unseen by the program's modes; at what has no numbers (a meta tensor) there is nothing to see."""
        with contextlib.suppress(Exception), lanes.without_modes() if lanes.has_modes() else contextlib.nullcontext():
            at(*event)

    def _note(self, what: str, tensors: list[Tensor]) -> None:
        self._what = self._what or what


def nonfinite_gradients(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients of an optimizer's parameters that are not finite."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    gradients = [g for g in found if lanes.readable(g)]
    dense = [g for g in gradients if g.layout is torch.strided and not g.is_complex()]
    if dense and math.isfinite(sum(n.item() for n in torch._foreach_norm(dense))):
        gradients = [g for g in gradients if g.layout is not torch.strided or g.is_complex()]
    return [g for g in gradients if not bool(torch.isfinite(g._values() if g.is_sparse else g).all())]


def _total(tensor: Tensor) -> float:
    value = tensor.detach() if tensor.numel() == 1 else tensor.detach().sum()
    return abs(complex(value)) if value.is_complex() else float(value)
