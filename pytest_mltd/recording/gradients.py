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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from pytest_mltd.core.traces import NO_GRAD
from pytest_mltd.recording import lanes, memory
from pytest_mltd.recording.lanes import Lane, Number

_FLOAT = torch.float32
_SMALL = 1 << 14  # numbers; up to here numpy's dot is the cheaper one (no threads, no tensor for the result), measured
_PLAIN = (Tensor, torch.nn.Parameter)
_sqrt, _vdot, _floats = math.sqrt, np.vdot, memory.floats
_NONE = -1  # the version of a gradient that is None


class Backward:
    """The backward that runs: its loss (unscaled), stream and scale, and whether it may make new gradient tensors for all."""

    __slots__ = ("fresh", "loss", "scale", "stream")

    def __init__(self, loss: Number | None, stream: int, scale: Number, fresh: bool) -> None:
        self.loss = loss  # None: it could not be read
        self.stream = stream
        self.scale = scale
        self.fresh = fresh


class Plan:
    """One optimizer: its parameters, and what was last seen of their gradients. A generation ends with a step, done or skipped.

    Lists run over the parameters, so that the usual case is one comparison of two lists of versions.
    """

    def __init__(self, optimizer: Optimizer, index: int) -> None:
        self.ref = weakref.ref(optimizer)
        self.index = index
        self.parameters: list[Tensor] = []
        self.indexes = np.zeros(0, np.intp)  # in the trace
        self.size = -1
        self.count = 0  # steps that were done
        self.last = 0  # the newest one's number among those of all optimizers
        self.generation = 0
        # what was last seen of each gradient
        self.versions: list[int] = []
        self.nothing: list[int] = []  # the versions when all are None
        self.norms: list[Number | None] = []  # as backward left it, scaled as it was; None: not known
        self.written: list[int] = []  # the generation when it was last written or cleared
        self.grown: list[int] = []  # the generation in which it grew although it was left over from the one before
        self.reached: list[bool] = []  # whether a backward ever wrote it
        self.clear = False  # all were None before the backward that runs
        self.small = False  # whether numpy takes the norms
        # the step in progress
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
        self.weights: Weights | None = None  # before the step, once one was sampled
        self.measured = False  # whether they were taken for this step
        self.digests: list[int] | None = None  # of the gradients as backward left them
        self.digested: list[int] | None = None  # as the step used them

    def hold(self, parameters: list[Tensor], indexes: Sequence[int], size: int) -> None:
        """Take the optimizer's parameters, whose indexes in the trace are given; what is known of those that stay is kept."""
        known = {id(p): i for i, p in enumerate(self.parameters)}
        old = [known.get(id(p)) for p in parameters]
        count = len(parameters)
        grads = [p.grad for p in parameters]
        versions = [_NONE if g is None else g._version for g in grads]
        self.versions = [versions[i] if o is None else self.versions[o] for i, o in enumerate(old)]
        self.norms = [None if o is None else self.norms[o] for o in old]
        self.written = [self.generation if o is None else self.written[o] for o in old]
        self.grown = [-1 if o is None else self.grown[o] for o in old]
        self.reached = [False if o is None else self.reached[o] for o in old]
        self.nothing = [_NONE] * count
        self.small = all(
            type(p) in _PLAIN and p.is_cpu and p.dtype is _FLOAT and p.numel() <= _SMALL for p in parameters
        )
        self.parameters = parameters
        self.indexes = np.array(indexes, np.intp)
        self.size = size
        self.clear = False
        self.weights = self.digests = self.digested = None  # of the parameters as they were
        self.measured = False

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
    groups = optimizer.param_groups
    return len(groups[0]["params"]) if len(groups) == 1 else sum(len(group["params"]) for group in groups)


class Gradients:
    """Follows the gradients of all known optimizers."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._plans: dict[int, Plan] = {}

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
        plan.hold(parameters_of(optimizer), indexes, size_of(optimizer))

    def before_backward(self) -> None:
        """Look which gradients were cleared or touched since they were last seen."""
        for plan in self._plans.values():
            grads = [p.grad for p in plan.parameters]
            versions = [_NONE if g is None else g._version for g in grads]
            plan.clear = versions == plan.nothing
            if plan.clear:
                plan.versions = versions
                if plan.losses:
                    plan.losses = []
            else:
                self._look_between(plan, grads, versions)

    def after_backward(self, backward: Backward, plans: Iterable[Plan]) -> None:
        """Take the norms of the gradients that a backward wrote, and give its loss to the optimizers they belong to."""
        for plan in plans:
            grads = [p.grad for p in plan.parameters]
            versions = [_NONE if g is None else g._version for g in grads]
            if plan.clear and _NONE not in versions:
                plan.norms = self._norms(grads, backward.fresh, plan.small)  # type: ignore[arg-type]
                if not plan.reached or not plan.reached[-1] or False in plan.reached:
                    plan.reached = [True] * len(versions)
                plan.written = [plan.generation] * len(versions)
                plan.grown = plan.nothing
            elif not self._wrote(plan, grads, versions, backward.fresh):
                continue
            plan.clear = False
            plan.versions = versions
            if backward.loss is not None:
                plan.losses.append(backward.loss)
            plan.stream = backward.stream
            plan.scale = backward.scale

    def arrive_late(self, plan: Plan, backward: Backward) -> None:
        """Give the last backward to an optimizer that was first met at its step: its gradients lie there already."""
        wrote = [p.grad is not None for p in plan.parameters]
        if any(wrote):
            plan.reached = wrote
            plan.losses = [] if backward.loss is None else [backward.loss]
            plan.stream = backward.stream
            plan.scale = backward.scale

    def before_step(self, plan: Plan, sampled: bool) -> None:
        """Read the gradients as the step is going to use them. ``sampled``: look also where nothing seems to have changed."""
        look = sampled or plan.confirm
        grads = [p.grad for p in plan.parameters]
        versions = [_NONE if g is None else g._version for g in grads]
        scaled = type(plan.scale) is not float or plan.scale != 1.0
        plain = versions == plan.versions and _NONE not in versions and None not in plan.norms
        plan.stale = sum(g == plan.generation for g in plan.grown) if plan.grown is not plan.nothing else 0
        if plain and not (look or scaled):
            plan.left = plan.used = plan.norms
        else:
            self._as_used(plan, grads, versions, look, scaled)
            plan.versions = versions
        plan.nonfinite = 0
        if self._lane.waiting:
            plan.nonfinite = lanes.Derived(_nonfinite, plan.used)
        elif not math.isfinite(sum(plan.used)):
            self._look_closer(plan, grads)
            plan.nonfinite = _nonfinite(plan.used)

    def norms_of(self, parameters: Sequence[Tensor]) -> list[Number]:
        """Return the norm of each parameter's gradient as it lies there now, `NO_GRAD` where there is none."""
        grads = [p.grad for p in parameters]
        norms = iter(self._norms([g for g in grads if g is not None]))
        return [NO_GRAD if g is None else next(norms) for g in grads]

    def unreached(self) -> list[int]:
        """Return the indexes of parameters in a stepped optimizer that no backward ever wrote to."""
        reached, held = set(), {}
        for plan in self._plans.values():
            for index, parameter, wrote in zip(plan.indexes.tolist(), plan.parameters, plan.reached, strict=True):
                if wrote or not parameter.requires_grad:
                    reached.add(index)
                elif plan.count:
                    held[index] = True
        return [index for index in held if index not in reached]

    def _look_between(self, plan: Plan, grads: list[Tensor | None], versions: list[int]) -> None:
        """Before a backward: what is None or was touched since it was last seen is taken for cleared."""
        generation, grown = plan.generation, list(plan.grown)
        plan.grown = grown
        plan.norms = list(plan.norms)  # a row that waits to be written may hold the list
        cleared, touched, suspects = True, None, []
        for i, (now, seen) in enumerate(zip(versions, plan.versions, strict=True)):
            if now == _NONE or now != seen:
                plan.norms[i] = None
                plan.written[i] = generation
                grown[i] = -1
                if now != _NONE:
                    touched = grads[i]
            else:
                cleared = False
                if plan.written[i] != generation:
                    suspects.append(i)
        plan.versions = versions
        if cleared and plan.losses and (touched is None or self._is_zero(touched)):
            plan.losses = []
        if suspects:  # take back the suspicion where `p.grad.data.zero_()` has cleared it: that moves no version
            norms = self._norms([g for i in suspects if (g := grads[i]) is not None])
            for i, norm in zip(suspects, norms, strict=True):
                if type(norm) is float and norm == 0:
                    plan.written[i] = generation

    def _wrote(self, plan: Plan, grads: list[Tensor | None], versions: list[int], fresh: bool) -> bool:
        """After a backward: take what it wrote; tell whether it wrote anything."""
        if versions == plan.versions and not fresh:
            return False
        generation = plan.generation
        if plan.clear:  # what was None is not left over
            plan.written = [generation] * len(versions)
            plan.norms = [None] * len(versions)
            plan.grown = plan.nothing
        else:
            plan.norms = list(plan.norms)  # a row that waits to be written may hold the list
        pairs = zip(versions, plan.versions, strict=True)
        written = [i for i, (now, seen) in enumerate(pairs) if now != _NONE and (now != seen or fresh)]
        left_over = [i for i in written if plan.written[i] != generation]
        if left_over:
            plan.grown = list(plan.grown)
            for i in left_over:
                plan.grown[i] = plan.written[i] = generation
        for i, norm in zip(written, self._norms([grads[i] for i in written], fresh), strict=True):  # type: ignore[misc]
            plan.norms[i] = norm
            plan.reached[i] = True
        return bool(written)

    def _as_used(self, plan: Plan, grads: list[Tensor | None], versions: list[int], look: bool, scaled: bool) -> None:
        """Take the norms of gradients that may have changed since backward, and divide scaled ones by their scale."""
        known = [NO_GRAD if g is None else n for g, n in zip(grads, plan.norms, strict=True)]
        pairs = enumerate(zip(grads, known, versions, plan.versions, strict=True))
        looked = [i for i, (g, n, now, seen) in pairs if g is not None and (look or n is None or now != seen)]
        left, used = list(known), list(known)
        for i, norm in zip(looked, self._norms([grads[i] for i in looked]), strict=True):  # type: ignore[misc]
            used[i] = norm
            if left[i] is None:
                left[i] = norm
        if look and not plan.confirm:
            unmoved = [i for i in looked if known[i] is not None and versions[i] == plan.versions[i]]
            plan.confirm = _moved_unseen(plan, left, used, unmoved)
        if scaled:
            fused = getattr(plan.ref(), "grad_scale", None) is not None
            seen_again = set(looked)
            for i, grad in enumerate(grads):
                if grad is None:
                    continue
                if fused or (plan.unscaled and i not in seen_again):
                    used[i] = _over(used[i], plan.scale)
                if known[i] is not None:
                    left[i] = _over(left[i], plan.scale)
        same = all(a is b for a, b in zip(left, used, strict=True)) or (left == used and not self._lane.waiting)
        plan.left, plan.used = left, left if same else used

    def _norms(self, gradients: Sequence[Tensor], differentiable: bool = False, small: bool = False) -> list[Number]:
        """Return the norms.

        ``differentiable``: the gradients may have a graph of their own, which must not grow. ``small``: they belong to small
        float32 parameters on the CPU, for which numpy's dot is the cheaper engine.
        """
        if differentiable:
            return self._slow(gradients)
        if small:
            try:
                views = list(map(_floats, gradients))
                return list(map(_sqrt, map(_vdot, views, views)))  # without a step of Python's own between them
            except (TypeError, RuntimeError):  # sparse, say, or transposed
                return self._slow(gradients)
        if all(type(g) is Tensor and g.dtype is _FLOAT and g.layout is torch.strided for g in gradients):
            return self._lane.read(torch._foreach_norm(list(gradients))) if gradients else []
        return self._slow(gradients)

    def _slow(self, gradients: Sequence[Tensor]) -> list[Number]:
        if not gradients:
            return []
        with lanes.quiet():
            return self._lane.read(lanes.norms([_local(g) for g in gradients]))

    def _is_zero(self, gradient: Tensor) -> bool:
        norm = self._norms([gradient])[0]
        return type(norm) is float and norm == 0

    def _look_closer(self, plan: Plan, grads: list[Tensor | None]) -> None:
        """Replace norms that left float32's range by those of float64, so that inf means a gradient that is not finite."""
        used, left = list(plan.used), list(plan.left)
        with lanes.quiet():
            for i, grad in enumerate(grads):
                if grad is not None and not math.isfinite(used[i]):
                    same = left[i] == used[i] or math.isnan(left[i])
                    used[i] = lanes.exact_norm(_local(grad))
                    left[i] = used[i] if same else left[i]
        plan.left, plan.used = left, used


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


def _local(tensor: Tensor) -> Tensor:
    """Return this process's part of a sharded tensor: the norm of the whole would need the others."""
    part: Any = getattr(tensor, "_local_tensor", tensor)
    return part if isinstance(part, Tensor) else tensor


class Weights:
    """An optimizer's weights before a step, to measure what the step adds.

    ``keep``: hold the copies' memory for the next step, where each step is measured.
    """

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._before: list[Tensor] = []
        self._norms: list[Number] = []

    def take(self, parameters: Sequence[Tensor], lane: Lane) -> None:
        """Copy the weights, and take their norms."""
        now = [p.detach() for p in parameters]
        alike = len(now) == len(self._before) and all(
            b.shape == n.shape and b.dtype == n.dtype and b.device == n.device
            for b, n in zip(self._before, now, strict=True)
        )
        with lanes.quiet():
            if alike:
                torch._foreach_copy_(self._before, now)
            else:
                self._before = [n.clone() for n in now]
            self._norms = _norms_of(self._before, lane)

    def measure(self, parameters: Sequence[Tensor], lane: Lane) -> tuple[list[Number], list[Number]]:
        """Return the norms of what was added since, and of the weights before."""
        before, norms = self._before, self._norms
        with lanes.quiet():
            for b, p in zip(before, parameters, strict=True):
                b.sub_(p.detach())
            added = _norms_of(before, lane)
        if not self._keep:
            self._before = []
        return added, norms


def _norms_of(tensors: list[Tensor], lane: Lane) -> list[Number]:
    arrays = [lanes.flat(t) for t in tensors]
    if all(a is not None for a in arrays):
        return [_sqrt(_vdot(a, a)) for a in arrays]  # type: ignore[arg-type]
    return lane.read(lanes.norms(tensors))
