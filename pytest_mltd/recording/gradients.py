"""The gradients of one recording: as backward left them, as the step used them, and which were left over from before.

A gradient is followed by its version counter, never by the identity of its tensor: a new tensor may live where a freed one
did. Left over ("stale"): the counter did not move between the optimizer's step and the next backward, and then grew in it.
What changes a gradient without moving the counter (``.data``, fused kernels, ``unscale_``) is confirmed by the norm at sampled
steps, and once it was found, at every step.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim.optimizer import Optimizer

from pytest_mltd.core.traces import NO_GRAD
from pytest_mltd.recording import lanes
from pytest_mltd.recording.lanes import Lane, Number

_NONE = -1  # the version of a gradient that is None


class Cell:
    """One parameter of an optimizer, and what was last seen of its gradient."""

    __slots__ = ("index", "norm", "old", "parameter", "reached", "scale", "stale", "version")

    def __init__(self, parameter: Tensor, index: int) -> None:
        self.parameter = parameter
        self.index = index
        self.version = _NONE
        self.norm: Number | None = None  # as backward left it, scaled as it was; None: not known
        self.scale: Number = 1.0
        self.old = False  # nothing has touched it since the step
        self.stale = False  # and then a backward added to it
        self.reached = False  # a backward ever did


@dataclass(frozen=True, slots=True)
class Backward:
    """The backward that runs: its loss (unscaled), stream and scale, and whether it may make new gradient tensors for all."""

    loss: Number
    stream: int
    scale: Number
    fresh: bool


class Plan:
    """One optimizer: its cells, and the losses since its last step."""

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self.ref = weakref.ref(optimizer)
        self.index = index
        self.cells: list[Cell] = []
        self.indexes = np.zeros(0, np.intp)
        self.size = -1
        self.count = 0  # steps
        self.confirm = False  # the norms changed without a version: look at every step
        self.unscaled = False
        self.closure = False
        self.scale: Number = 1.0
        self.stream = -1
        self.losses: list[Number] = []  # whose gradients lie in the parameters now
        self.others: list[Number] = []  # given to autograd.grad, which leaves no gradient behind
        self.left: list[Number] = []  # norms as backward left them, unscaled, of the step in progress
        self.used: list[Number] = []
        self.nonfinite: Number = 0
        self.stale = 0
        self.before: list[Tensor] | None = None  # weights, at a sampled step
        self.digests: list[int] | None = None  # of the gradients as backward left them
        self.digested: list[int] | None = None  # as the step used them

    def forget_losses(self) -> None:
        """Begin to count losses anew, after a step."""
        self.losses = []
        self.others = []


def parameters_of(optimizer: Optimizer) -> list[Tensor]:
    """Return an optimizer's leaf parameters in order."""
    return [p for group in optimizer.param_groups for p in group["params"] if isinstance(p, Tensor) and p.is_leaf]


def size_of(optimizer: Optimizer) -> int:
    """Return how many parameters an optimizer holds."""
    return sum(len(group["params"]) for group in optimizer.param_groups)


class Gradients:
    """Follows the gradients of all known optimizers."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._plans: dict[int, Plan] = {}
        self._cells: dict[int, Cell] = {}  # by the parameter's index

    @property
    def plans(self) -> Iterable[Plan]:
        """The plans of the optimizers that still live."""
        return self._plans.values()

    def plan(self, optimizer: Optimizer) -> Plan | None:
        """Return an optimizer's plan, None when it is not known."""
        found = self._plans.get(id(optimizer))
        return found if found is not None and found.ref() is optimizer else None

    def take(self, optimizer: Optimizer, plan: Plan, indexes: Sequence[int]) -> None:
        """Take up an optimizer, or its changed list of parameters, whose indexes in the trace are given."""
        for dead in [key for key, one in self._plans.items() if one.ref() is None]:
            del self._plans[dead]
        self._plans[id(optimizer)] = plan
        plan.cells = []
        for parameter, index in zip(parameters_of(optimizer), indexes, strict=True):
            cell = self._cells.get(index)
            if cell is None or cell.parameter is not parameter:
                cell = self._cells[index] = Cell(parameter, index)
                grad = parameter.grad
                if grad is not None:
                    cell.version = grad._version
            plan.cells.append(cell)
        plan.indexes = np.array([c.index for c in plan.cells], np.intp)
        plan.size = size_of(optimizer)
        self._cells = {c.index: c for p in self._plans.values() for c in p.cells}

    def before_backward(self) -> None:
        """Look which gradients were cleared or touched since they were last seen."""
        suspects = []
        for plan in self._plans.values():
            cleared = True
            touched = None
            for cell in plan.cells:
                grad = cell.parameter.grad
                if grad is None:
                    cell.version = _NONE
                    cell.norm = None
                    cell.old = cell.stale = False
                    continue
                if grad._version != cell.version:
                    cell.version = grad._version
                    cell.norm = None
                    cell.old = cell.stale = False
                    touched = grad
                else:
                    cleared = False
                    if cell.old and not cell.stale:
                        suspects.append(cell)
            if cleared and plan.losses and (touched is None or self._is_zero(touched)):
                plan.losses = []
        if suspects:
            self._clear_zeroed(suspects)

    def after_backward(self, backward: Backward, plans: Iterable[Plan]) -> None:
        """Take the norms of the gradients that a backward wrote, and give its loss to the optimizers they belong to."""
        written = []
        gradients = []
        for plan in plans:
            known = len(written)
            for cell in plan.cells:
                grad = cell.parameter.grad
                if grad is not None and (grad._version != cell.version or backward.fresh):
                    cell.version = grad._version
                    cell.scale = backward.scale
                    cell.reached = True
                    if cell.old:
                        cell.stale = True
                    written.append(cell)
                    gradients.append(grad)
            if len(written) > known:
                plan.losses.append(backward.loss)
                plan.stream = backward.stream
                plan.scale = backward.scale
        for cell, norm in zip(written, self._norms(gradients), strict=True):
            cell.norm = norm

    def before_step(self, plan: Plan, sampled: bool) -> None:
        """Read the gradients as the step is going to use them."""
        changed = []
        gradients = []
        confirm = sampled or plan.confirm
        for cell in plan.cells:
            grad = cell.parameter.grad
            if grad is not None and (confirm or cell.norm is None or grad._version != cell.version):
                changed.append(cell)
                gradients.append(grad)
        now = dict(zip((c.index for c in changed), self._norms(gradients), strict=True)) if changed else {}
        if confirm and not plan.confirm:
            plan.confirm = self._moved_unseen(plan, now)
        fused = getattr(plan.ref(), "grad_scale", None) is not None
        plan.left, plan.used, stale = [], [], 0
        for cell in plan.cells:
            if cell.parameter.grad is None:
                plan.left.append(NO_GRAD)
                plan.used.append(NO_GRAD)
                continue
            norm = now.get(cell.index, cell.norm)
            left = norm if cell.norm is None else cell.norm
            scaled = cell.scale is not None and cell.scale != 1.0
            plan.left.append(_over(left, cell.scale) if scaled and cell.norm is not None else left)
            if scaled and (fused or (plan.unscaled and cell.index not in now)):
                norm = _over(norm, cell.scale)
            plan.used.append(norm)
            stale += cell.stale
        plan.stale = stale
        self._count_nonfinite(plan)

    def after_step(self, plan: Plan) -> None:
        """Remember the gradients that lie there after the step; what is still there at the next backward is left over."""
        for cell in plan.cells:
            grad = cell.parameter.grad
            cell.version = _NONE if grad is None else grad._version
            cell.old = grad is not None
            cell.stale = False
        plan.unscaled = False
        plan.scale = 1.0
        plan.forget_losses()

    def unreached(self) -> list[int]:
        """Return the indexes of parameters in a stepped optimizer that no backward ever wrote to."""
        cells = {c.index: c for plan in self._plans.values() if plan.count for c in plan.cells}
        return [index for index, cell in cells.items() if not cell.reached and cell.parameter.requires_grad]

    def _norms(self, gradients: list[Tensor]) -> list[Number]:
        if not gradients:
            return []
        local = [_local(g) for g in gradients]
        with lanes.quiet():
            return self._lane.read(lanes.norms(local))

    def _is_zero(self, gradient: Tensor) -> bool:
        norm = self._norms([gradient])[0]
        return isinstance(norm, float) and norm == 0

    def _clear_zeroed(self, suspects: list[Cell]) -> None:
        """Take back the suspicion where ``p.grad.data.zero_()`` has cleared the gradient: that moves no version."""
        norms = self._norms([c.parameter.grad for c in suspects])  # type: ignore[misc]
        for cell, norm in zip(suspects, norms, strict=True):
            if isinstance(norm, float) and norm == 0:
                cell.old = False

    def _moved_unseen(self, plan: Plan, now: dict[int, Number]) -> bool:
        """Whether a norm is another than backward left although the version did not move (and unscaling is not why)."""
        for cell in plan.cells:
            new, old, grad = now.get(cell.index), cell.norm, cell.parameter.grad
            if isinstance(new, float) and isinstance(old, float) and grad is not None and grad._version == cell.version:
                expected = old / float(cell.scale) if plan.unscaled else old
                if math.isfinite(expected) and abs(new - expected) > 1e-6 * expected:
                    return True
        return False

    def _count_nonfinite(self, plan: Plan) -> None:
        if all(type(v) is float for v in plan.used):
            if math.isfinite(sum(plan.used)):
                plan.nonfinite = 0
                return
            self._look_closer(plan)
        plan.nonfinite = lanes.Derived(_nonfinite, plan.used)

    def _look_closer(self, plan: Plan) -> None:
        """Replace norms that left float32's range by those of float64, so that inf means a gradient that is not finite."""
        with lanes.quiet():
            for position, cell in enumerate(plan.cells):
                grad = cell.parameter.grad
                if grad is not None and not math.isfinite(plan.used[position]):
                    exact = lanes.exact_norm(_local(grad))
                    same = plan.left[position] == plan.used[position] or math.isnan(exact)
                    plan.used[position] = exact
                    if same:
                        plan.left[position] = exact


def _nonfinite(values: list[float]) -> int:
    return sum(not math.isfinite(v) for v in values)


def _over(norm: Number, scale: Number) -> Number:
    if type(norm) is float and type(scale) is float:
        return norm / scale
    return lanes.Derived(lambda pair: pair[0] / pair[1], (norm, scale))


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor: the norm of the whole would need the others."""
    part: Any = getattr(tensor, "_local_tensor", tensor)
    return part if isinstance(part, Tensor) else tensor


def clones(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return copies."""
    return [t.detach().clone() for t in tensors]


def update_norms(before: Sequence[Tensor], after: Sequence[Tensor], lane: Lane) -> tuple[list[Number], list[Number]]:
    """Return the norms of what a step added, and of the weights before it."""
    with lanes.quiet():
        steps = [a.detach() - b for a, b in zip(after, before, strict=True)]
        both = lane.read(lanes.norms([*steps, *before]))
    return both[: len(steps)], both[len(steps) :]
