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
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from pytest_mltd.core.traces import NO_GRAD
from pytest_mltd.recording import lanes
from pytest_mltd.recording.lanes import Lane, Number

_NONE = -1  # the version of a gradient that is None


class Cell:
    """One parameter of an optimizer, and what was last seen of its gradient."""

    __slots__ = ("generation", "index", "norm", "parameter", "reached", "stale", "version")

    def __init__(self, parameter: Tensor, index: int) -> None:
        self.parameter = parameter
        self.index = index
        self.version = _NONE
        self.norm: Number | None = None  # as backward left it, scaled as it was; None: not known
        self.generation = 0  # the optimizer's generation when it was last written or cleared
        self.stale = -1  # the generation in which it grew although it was left over from the one before
        self.reached = False  # a backward ever wrote it


@dataclass(frozen=True, slots=True)
class Backward:
    """The backward that runs: its loss (unscaled), stream and scale, and whether it may make new gradient tensors for all."""

    loss: Number
    stream: int
    scale: Number
    fresh: bool


class Plan:
    """One optimizer: its cells, and what is known of the step in progress. A generation ends with a step, done or skipped."""

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self.ref = weakref.ref(optimizer)
        self.index = index
        self.cells: list[Cell] = []
        self.indexes = np.zeros(0, np.intp)
        self.size = -1
        self.count = 0  # steps that were done
        self.generation = 0
        self.confirm = False  # norms changed without a version: look at every step
        self.unscaled = False
        self.closure = False
        self.scale: Number = 1.0
        self.stream = -1
        self.losses: list[Number] = []  # whose gradients lie in the parameters now
        self.others: list[Number] = []  # given to autograd.grad, which leaves no gradient behind
        self.left: Sequence[Number] = ()  # norms as backward left them, unscaled
        self.used: Sequence[Number] = ()  # as the step used them; the same object when nothing touched them
        self.nonfinite: Number = 0
        self.stale = 0
        self.before: list[Tensor] | None = None  # weights, at a sampled step
        self.digests: list[int] | None = None  # of the gradients as backward left them
        self.digested: list[int] | None = None  # as the step used them

    def end_generation(self) -> None:
        """Begin anew after a step: gradients that still lie there at the next backward are left over."""
        self.generation += 1
        self.unscaled = False
        self.scale = 1.0
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
        for plan in self._plans.values():
            generation = plan.generation
            cleared = True
            touched = None
            suspects = None
            for cell in plan.cells:
                grad = cell.parameter.grad
                if grad is None:
                    cell.version = _NONE
                elif grad._version != cell.version:
                    cell.version = grad._version
                    touched = grad
                else:
                    cleared = False
                    if cell.generation != generation:
                        suspects = suspects or []
                        suspects.append(cell)
                    continue
                cell.norm = None
                cell.generation = generation
                cell.stale = -1
            if cleared and plan.losses and (touched is None or self._is_zero(touched)):
                plan.losses = []
            if suspects is not None:
                self._clear_zeroed(suspects, generation)

    def after_backward(self, backward: Backward, plans: Iterable[Plan]) -> None:
        """Take the norms of the gradients that a backward wrote, and give its loss to the optimizers they belong to."""
        written = []
        gradients = []
        fresh = backward.fresh
        for plan in plans:
            generation = plan.generation
            known = len(written)
            for cell in plan.cells:
                grad = cell.parameter.grad
                if grad is not None and ((version := grad._version) != cell.version or fresh):
                    cell.version = version
                    cell.reached = True
                    if cell.generation != generation:
                        cell.generation = cell.stale = generation
                    written.append(cell)
                    gradients.append(grad)
            if len(written) > known:
                plan.losses.append(backward.loss)
                plan.stream = backward.stream
                plan.scale = backward.scale
        if written:
            for cell, norm in zip(written, self._norms(gradients, fresh), strict=True):
                cell.norm = norm

    def before_step(self, plan: Plan, sampled: bool) -> None:
        """Read the gradients as the step is going to use them. ``sampled``: look also where nothing seems to have changed."""
        look = sampled or plan.confirm
        generation = plan.generation
        left: list[Number] = []
        changed = []
        stale = 0
        for cell in plan.cells:
            grad = cell.parameter.grad
            if grad is None:
                left.append(NO_GRAD)
                continue
            version = grad._version
            if look or cell.norm is None or version != cell.version:
                changed.append((len(left), cell, grad, version == cell.version and cell.norm is not None))
                cell.version = version
            left.append(cell.norm)
            stale += cell.stale == generation
        plan.stale = stale
        if changed or type(plan.scale) is not float or plan.scale != 1.0:
            self._as_used(plan, left, changed, look)
        else:
            plan.left = plan.used = left
        self._count_nonfinite(plan)

    def unreached(self) -> list[int]:
        """Return the indexes of parameters in a stepped optimizer that no backward ever wrote to."""
        cells = {c.index: c for plan in self._plans.values() if plan.count for c in plan.cells}
        return [index for index, cell in cells.items() if not cell.reached and cell.parameter.requires_grad]

    def _as_used(self, plan: Plan, left: list[Number], changed: list[Any], look: bool) -> None:
        """Take the norms of gradients that may have changed, and divide scaled ones by their scale."""
        used = list(left)
        for (position, _, _, _), norm in zip(changed, self._norms([c[2] for c in changed]), strict=True):
            used[position] = norm
            if left[position] is None:
                left[position] = norm
        if look and not plan.confirm:
            plan.confirm = _moved_unseen(plan, left, used, [c[0] for c in changed if c[3]])
        if type(plan.scale) is not float or plan.scale != 1.0:
            fused = getattr(plan.ref(), "grad_scale", None) is not None
            looked = {position for position, *_ in changed}
            for position, cell in enumerate(plan.cells):
                if cell.parameter.grad is None:
                    continue
                if fused or (plan.unscaled and position not in looked):
                    used[position] = _over(used[position], plan.scale)
                if cell.norm is not None:
                    left[position] = _over(left[position], plan.scale)
        plan.left, plan.used = left, used

    def _norms(self, gradients: Sequence[Tensor], differentiable: bool = False) -> list[Number]:
        """Return the norms; ``differentiable``: the gradients may have a graph of their own, which must not grow."""
        if not gradients:
            return []
        if not (differentiable or lanes.has_modes()):
            try:
                return self._lane.read(torch._foreach_norm(gradients)) if _is_simple(gradients) else self._slow(gradients)
            except RuntimeError:  # a gradient of a kind that has no such norm
                pass
        return self._slow(gradients)

    def _slow(self, gradients: Sequence[Tensor]) -> list[Number]:
        with lanes.quiet():
            return self._lane.read(lanes.norms([_local(g) for g in gradients]))

    def _is_zero(self, gradient: Tensor) -> bool:
        norm = self._norms([gradient])[0]
        return type(norm) is float and norm == 0

    def _clear_zeroed(self, suspects: list[Cell], generation: int) -> None:
        """Take back the suspicion where ``p.grad.data.zero_()`` has cleared the gradient: that moves no version."""
        gradients = [c.parameter.grad for c in suspects if c.parameter.grad is not None]
        for cell, norm in zip(suspects, self._norms(gradients), strict=True):
            if type(norm) is float and norm == 0:
                cell.generation = generation

    def _count_nonfinite(self, plan: Plan) -> None:
        plan.nonfinite = 0
        if self._lane.waiting:
            plan.nonfinite = lanes.Derived(_nonfinite, plan.used)
        elif not math.isfinite(sum(plan.used)):
            self._look_closer(plan)
            plan.nonfinite = _nonfinite(plan.used)

    def _look_closer(self, plan: Plan) -> None:
        """Replace norms that left float32's range by those of float64, so that inf means a gradient that is not finite."""
        used, left = list(plan.used), list(plan.left)
        with lanes.quiet():
            for position, cell in enumerate(plan.cells):
                grad = cell.parameter.grad
                if grad is not None and not math.isfinite(used[position]):
                    used[position] = lanes.exact_norm(_local(grad))
                    if plan.left is plan.used or left[position] == plan.used[position]:
                        left[position] = used[position]
        plan.used, plan.left = used, left


def _moved_unseen(plan: Plan, left: list[Number], used: list[Number], unmoved: list[int]) -> bool:
    """Whether a norm is another than backward left although the version did not move (and unscaling is not why)."""
    for position in unmoved:
        old, new = left[position], used[position]
        if type(old) is float and type(new) is float:
            expected = old / float(plan.scale) if plan.unscaled else old
            if math.isfinite(expected) and abs(new - expected) > 1e-6 * expected:
                return True
    return False


def _nonfinite(values: Sequence[float]) -> int:
    return sum(not math.isfinite(v) for v in values)


def _over(norm: Number, scale: Number) -> Number:
    if type(norm) is float and type(scale) is float:
        return norm / scale
    return lanes.Derived(lambda pair: pair[0] / pair[1], (norm, scale))


def _is_simple(gradients: Sequence[Tensor]) -> bool:
    """Whether all are plain float32 tensors of one layout, whose norms are taken together."""
    return all(type(g) is Tensor and g.dtype is torch.float32 and g.layout is torch.strided for g in gradients)


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
