"""Questions about what the steps did to the parameters: nothing at all, or too much, or too little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats, block_medians, curves, moving_target, no_steps, too_short
from pytest_mltd.checks.runs.places import (
    counted,
    held_by,
    listed,
    norm_rows,
    not_recorded,
    optimizer_label,
    root_of,
    stepping,
)
from pytest_mltd.checks.runs.scales import first_gradient
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import NOT_TAKEN, Parameter, Trace, as_trace


@check("run", explains=("losses.plateau", "gradients.vanishing"), rank=15)
def check_frozen_parameters(run: Any, *, fewest_steps: int = 4, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether parameters that should train never can: no gradient reaches them, or no optimizer holds them.

    Asked of parameters that require a gradient and belong to a module that was used. Frozen on purpose are those with
    ``requires_grad=False``, those of a network in eval mode or under no_grad that no optimizer holds, and those of modules that
    were never called. A branch that is left out in some steps is no fault.

    Args:
        run: a recording, a run or a trace.
        fewest_steps: steps of an optimizer that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``fewest_steps`` is not positive.
    """
    trace = as_trace(run)
    if not fewest_steps > 0:
        raise ValueError(f"fewest_steps: a number above zero is needed, not {fewest_steps!r}")
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if not trace.parameters:
        return not_asked("the run trained no parameter of a module")
    if reason := too_short(trace, trace.busiest, fewest_steps):
        return not_asked(reason)
    unreached = _unreached(trace, fewest_steps)
    groups = [_left_out(trace), _orphans(trace, unreached), _cut_off(trace, unreached), _unmoved(trace)]
    kept, allowed = sift(allow, [name for group in groups for name in group.names])
    groups = [group.only(set(kept)) for group in groups]
    broken = next((group for group in groups if group.names), None)
    total = sum(p.requires_grad for p in trace.parameters)
    if broken is None:
        return Finding(
            ok=True,
            headline=f"all of the {counted(total, 'parameter')} in use that should train receive gradients and move",
            looked_at=f"{counted(len(trace.parameters), 'parameter')} over {counted(trace.n_steps, 'step')}",
            allowed=allowed,
        )
    return _frozen_finding(trace, broken, total, allowed)


@check("run", explains=("losses.*", "gradients.explosion", "gradients.nonfinite", "gradients.vanishing"), rank=20)
def check_update_scale(
    run: Any,
    *,
    max_ratio: float = 0.3,
    min_ratio: float = 1e-7,
    min_steps: int = 10,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether steps are out of scale with the weights they change, and the loss shows it.

    The ratio is the norm of what a step adds to the weights of an optimizer (two axes or more) over the norm of those weights.
    Too large fails only where the loss did not come down; too small only where the loss did not move at all.

    Args:
        run: a recording, a run or a trace.
        max_ratio: the highest ratio in the early steps (CS231n calls 1e-3 healthy and 1e-2 high; healthy programs with a
            loss that does not fall stay under it in tests/faulty).
        min_ratio: the lowest ratio, median over the run (a guess: ten thousand steps of that size move a weight by 0.1%).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("max_ratio", max_ratio), ("min_ratio", min_ratio), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_steps(trace) or not_recorded(trace, "updates", "updates"):
        return not_asked(reason)
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    measured = [m for i in stepping(trace) if (m := _scale(trace, i)) is not None]
    if not measured:
        return not_asked("no weight of two axes or more was trained")
    for scale in measured:
        if (finding := _too_large(trace, scale, max_ratio) or _too_small(trace, scale, min_ratio)) is not None:
            return finding
    largest = max(scale.early for scale in measured)
    return Finding(
        ok=True,
        headline=f"updates are in scale: early steps change the weights by {number(largest)} of their norm or "
        "less, or the loss "
        f"came down (max_ratio={max_ratio:g})",
        amount=largest,
        limit=("max_ratio", max_ratio),
        looked_at=", ".join(f"{counted(s.at.size, 'sampled step')} of {s.label}" for s in measured),
    )


_EXPLODED = 50.0  # a first gradient this many times the weights is at fault itself: `gradients.explosion` says so

assert_no_frozen_parameters = asserting(check_frozen_parameters)
assert_no_update_scale = asserting(check_update_scale)


# -- frozen parameters


@dataclass(frozen=True, slots=True)
class _Group:
    """Parameters that cannot train, and one and the same reason; ``what`` has a place for their number."""

    names: tuple[str, ...]
    what: str
    shows: str
    next_step: str

    def only(self, kept: set[str]) -> _Group:
        return _Group(tuple(n for n in self.names if n in kept), self.what, self.shows, self.next_step)


def _left_out(trace: Trace) -> _Group:
    """Parameters in no optimizer although gradients are computed for them in train mode."""
    trained_roots = {root_of(trace, p.name) for p in trace.parameters if p.optimizers}
    names = []
    unregistered = False
    if any(p.optimizers for p in trace.parameters):
        grads = trace.parameter_norms["grad"]
        unowned = {f.who for f in trace.facts if f.kind == "unowned"}
        for i, p in enumerate(trace.parameters):
            if p.optimizers or not p.requires_grad:
                continue
            hidden = not p.registered and (grads[:, i] == NOT_TAKEN).all() and _called(trace, p)
            if not (p.name in unowned or hidden or (grads[:, i] > 0).any()):
                continue
            if root_of(trace, p.name) in trained_roots or not _in_eval_mode(trace, root_of(trace, p.name)):
                names.append(p.name)
                unregistered |= not p.registered
    shows = (
        "They are called in training and in no module's parameters(): a plain Python list or dict hides the layers in it, so that "
        "the optimizer never sees them."
        if unregistered
        else "Backward computes gradients for them and no step uses them: they stay at their initial values."
    )
    remedy = (
        "hold the layers in nn.ModuleList or nn.ModuleDict, and make the optimizer after that"
        if unregistered
        else (
            "give them to the optimizer, made after the last layer is in place; if they are meant to stay, "
            "requires_grad_(False)"
        )
    )
    return _Group(tuple(names), "no optimizer holds {} (never updated)", shows, remedy)


def _unreached(trace: Trace, fewest_steps: int) -> list[Parameter]:
    """Return the parameters that an optimizer holds, and for which no step of it ever found a gradient."""
    found: list[Parameter] = []
    for optimizer in stepping(trace):
        columns = held_by(trace, optimizer)
        rows = norm_rows(trace, optimizer)
        if rows.size < fewest_steps or not columns.size:
            continue
        grad = trace.parameter_norms["grad"][rows][:, columns]
        used = trace.parameter_norms["grad_used"][rows][:, columns]
        arrived = ((grad >= 0) | np.isnan(grad) | (used >= 0) | np.isnan(used)).any(axis=0)
        never = ~arrived & (grad == -1).any(axis=0)
        loose = np.array([not trace.parameters[i].registered for i in columns])
        if not arrived.any():
            never &= loose | (trace.losses["step"].size >= 0.5 * rows.size)  # backward ran, and reached none of them
        elif never[int(np.flatnonzero(arrived)[-1]) + 1 :].sum() == never.sum():
            never &= loose  # only what comes after all that trains: an output nobody uses (a pooler, a spare head)
        known = {p.name for p in found}
        found += [p for p in (trace.parameters[i] for i in columns[never]) if p.requires_grad and p.name not in known]
    return found


def _orphans(trace: Trace, unreached: list[Parameter]) -> _Group:
    """Parameters in an optimizer that belong to no module of the program (any more); named are those in use in their stead."""
    loose = tuple(p.name for p in unreached if not p.registered)
    instead = tuple(
        p.name for p in trace.parameters if not p.optimizers and p.registered and p.requires_grad and _called(trace, p)
    )
    shows = (
        "The optimizer holds parameters that belong to no module that was called: a layer was replaced, copied or loaded after "
        "the optimizer was made, and the one in use is not trained."
    )
    if loose and instead:
        words = "the optimizer was made before {} came into use (never updated)"
        return _Group(instead, words, shows, "make the optimizer after the last layer is in place")
    words = "the optimizer holds {} of no module in use (never trained)"
    return _Group(loose, words, shows, "make the optimizer after the last layer is in place")


def _cut_off(trace: Trace, unreached: list[Parameter]) -> _Group:
    """Parameters in an optimizer, of modules that were called, that never receive a gradient."""
    return _Group(
        tuple(p.name for p in unreached if p.registered and _called(trace, p)),
        "no gradient reaches {} in any step (never trained)",
        "Their modules are called, the optimizer holds them, and no gradient arrives: the path from them to the loss is cut "
        "(detach(), .data, .item(), numpy, no_grad) or their output is not used.",
        "follow the output of the first of them to the loss and look for detach(), no_grad, .data, .item() or .numpy()",
    )


def _unmoved(trace: Trace) -> _Group:
    """Parameters with a gradient and a learning rate whose updates are all exactly zero."""
    names: list[str] = []
    at = trace.updates["step"]
    known = at < trace.n_steps
    lowest = np.where(known, trace.steps["lr_lowest"][np.minimum(at, max(trace.n_steps - 1, 0))], np.nan)
    moving = ~(lowest == 0)
    for i, p in enumerate(trace.parameters):
        update = trace.updates["update"][:, i]
        rows = (update >= 0) & moving
        if not p.optimizers or not p.requires_grad or rows.sum() < 4 or (update[rows] > 0).any():
            continue
        grad, weight = (
            float(np.median(trace.parameter_norms["grad_used"][:, i])),
            float(trace.updates["weight"][rows, i].max()),
        )
        lr = float(np.nanmedian(trace.steps["lr"]))
        if (
            grad > 0 and lr * grad > 1e-6 * weight > 0
        ):  # below that, float32 rounds the update away: the rate is the cause
            names.append(p.name)
    return _Group(
        tuple(names),
        "every step leaves {} unchanged, in spite of gradients",
        "The optimizer has a gradient and a learning rate for them and they stay bit for bit: updates are "
        "lost to rounding, or something "
        "puts the old values back.",
        "compare the size of lr × gradient with the spacing of the parameter's dtype, and look for code that writes to them",
    )


def _called(trace: Trace, p: Parameter) -> bool:
    """Whether the module that owns a parameter was called; True where the recorder did not watch modules."""
    owner = p.name.rpartition(".")[0]
    index = next((i for i, m in enumerate(trace.modules) if m.name == owner), None)
    if index is None or not trace.outputs["step"].size:
        return index is None and not any(m.name.startswith(owner + ".") for m in trace.modules)
    return bool((trace.outputs["rows"][:, index] >= 0).any())


def _in_eval_mode(trace: Trace, root: str) -> bool:
    """Whether the calls of a root module were mostly made in eval mode."""
    calls = trace.of("forward")
    names = [i for i, n in enumerate(trace.names) if n == root]
    mine = calls & np.isin(trace.calls["who"], names)
    return bool(mine.any() and np.nanmedian(trace.calls["value"][mine]) == 0)


def _frozen_finding(trace: Trace, group: _Group, total: int, allowed: tuple[tuple[str, str], ...]) -> Finding:
    size = sum(math.prod(p.shape) for p in trace.parameters if p.name in group.names)
    whole = sum(math.prod(p.shape) for p in trace.parameters if p.requires_grad)
    kind = {p.name: p.module for p in trace.parameters}
    return Finding(
        ok=False,
        headline=f"{group.what.format(counted(len(group.names), 'parameter'))}: {listed(group.names)} "
        f"({size:,} of {whole:,} values that should train)",
        culprit=group.names[0],
        amount=float(len(group.names)),
        step=0,
        table=Table(
            ("parameter", "module", "values", "optimizer", "gradients"),
            tuple(
                (
                    p.name,
                    kind[p.name],
                    math.prod(p.shape),
                    listed([optimizer_label(trace, i) for i in p.optimizers]).replace("'", "") or "none",
                    _arrival(trace, i),
                )
                for i, p in enumerate(trace.parameters)
                if p.name in group.names
            ),
            culprit=0,
        ),
        shows=group.shows,
        next_step=group.next_step,
        allowed=allowed,
        details={"parameters": list(group.names)},
    )


def _arrival(trace: Trace, index: int) -> str:
    """Say whether gradients arrive at a parameter, as far as they were watched."""
    p, grad = trace.parameters[index], trace.parameter_norms["grad"][:, index]
    if (grad > 0).any() or any(f.kind == "unowned" and f.who == p.name for f in trace.facts):
        return "arrive"
    return "none" if (grad != NOT_TAKEN).any() else "not watched"


# -- update scale


@dataclass(frozen=True, slots=True)
class _Scale:
    """Update over weight norms of one optimizer: at its sampled steps, by parameter."""

    optimizer: int
    label: str
    columns: Sequence[int]
    at: Any
    ratio: Floats  # sampled steps
    by_parameter: Floats  # sampled steps × columns
    curve: Curve | None

    @property
    def early(self) -> float:
        """The highest ratio among the first five sampled steps."""
        finite = self.ratio[:5][np.isfinite(self.ratio[:5])]
        return float(finite.max()) if finite.size else math.inf


def _scale(trace: Trace, optimizer: int) -> _Scale | None:
    owners = trace.steps["optimizer"]
    at = trace.updates["step"]
    rows = np.flatnonzero((at < owners.size) & (owners[np.minimum(at, owners.size - 1)] == optimizer))
    columns = [i for i in held_by(trace, optimizer) if len(trace.parameters[i].shape) >= 2]
    if not rows.size or not columns:
        return None
    update = trace.updates["update"][np.ix_(rows, columns)].astype(np.float64)
    weight = trace.updates["weight"][np.ix_(rows, columns)].astype(np.float64)
    taken = (update >= 0) | np.isnan(update)
    update = np.where(taken, update, 0.0)
    # Weights that begin at or near zero (a zero-initialised layer, an adapter) are measured by half the norm of a usual start.
    usual = 0.5 * np.sqrt([trace.parameters[i].shape[0] / 3 for i in columns])
    weight = np.where(taken, np.fmax(weight, usual), 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        total = np.sqrt((update**2).sum(1)) / np.sqrt((weight**2).sum(1))
        each = update / np.where(weight > 0, weight, np.nan)
    if not taken.any():
        return None
    found = curves(trace)
    mine = np.flatnonzero((owners == optimizer) & (trace.steps["backwards"] > 0))
    curve = Curve(found[0].name if found else "", mine, trace.steps["loss"][mine]) if mine.size else None
    return _Scale(optimizer, optimizer_label(trace, optimizer), columns, at[rows], total, each, curve)


def _too_large(trace: Trace, scale: _Scale, max_ratio: float) -> Finding | None:
    """Return the finding of early steps that overthrow the weights, where the loss suffered."""
    early = scale.ratio[:5]
    over = np.flatnonzero(early > max_ratio)  # what is not finite already is another question's
    if not over.size or scale.curve is None or moving_target(trace):
        return None
    at = int(over[0])
    if not _suffered(scale.curve, int(scale.at[at])) or first_gradient(trace, scale.optimizer) > _EXPLODED:
        return None
    step = int(scale.at[at])
    lr = float(trace.steps["lr"][step]) if step < trace.n_steps else math.nan
    worst = int(np.nanargmax(np.where(np.isfinite(scale.by_parameter[at]), scale.by_parameter[at], -1)))
    name = trace.parameters[scale.columns[worst]].name
    start, late = scale.curve.start, scale.curve.late
    peak = float(scale.curve.finite.max()) if scale.curve.finite.size else math.nan
    return Finding(
        ok=False,
        headline=f"the learning rate of {scale.label} is too high (lr {number(lr)}): step {step} changes the weights by "
        f"{number(float(scale.ratio[at]))} of their norm (max_ratio={max_ratio:g}), and the loss does not come down",
        culprit=scale.label,
        amount=float(scale.ratio[at]),
        limit=("max_ratio", max_ratio),
        step=step,
        table=_scale_table(trace, scale, at),
        shows=f"The loss begins at {number(start)}, peaks at {number(peak)} and ends at {number(late)}; "
        f"'{name}' is changed most. "
        "Steps this large overthrow the weights, and units can die of them.",
        next_step=f"try lr={number(lr / 100, 1)} to {number(lr / 10, 1)}: early updates near 0.001 of the weights are usual",
    )


def _suffered(curve: Curve, step: int) -> bool:
    """Whether the loss ended non-finite or little below its start, or was pushed far above it right after the step."""
    v = curve.finite
    if v.size < curve.value.size:
        return True
    if curve.signed or v.size < 5:
        return False
    after = v[int(np.searchsorted(curve.step, step)) + 1 :][:3]
    pushed = bool(after.size and float(after.max()) > 10 * curve.start)
    return pushed or curve.late > 0.75 * curve.start


def _too_small(trace: Trace, scale: _Scale, min_ratio: float) -> Finding | None:
    """Return the finding of steps that move nothing from the first on, where the loss did not move either."""
    usable = scale.ratio[np.isfinite(scale.ratio)]
    if usable.size < 3 or scale.curve is None or scale.curve.signed or moving_target(trace):
        return None
    ratio = float(np.median(usable))
    lr = float(np.nanmax(trace.steps["lr"][trace.steps["optimizer"] == scale.optimizer]))
    rows = norm_rows(trace, scale.optimizer, most=400)
    norms = (
        trace.parameter_norms["grad_used"][np.ix_(rows, np.array(scale.columns))].max(axis=1)
        if rows.size
        else np.zeros(1)
    )
    levels = block_medians(scale.curve.finite, blocks=10)
    still = float(levels.min()) > 0.95 * float(levels[0])
    stopped = lr == 0  # whatever the loss does: nothing is learned at all
    pushed = np.median(norms) > 0  # gradients of exactly zero are another question's
    if not (stopped or (ratio < min_ratio and still and pushed)):
        return None
    reach = ratio * scale.curve.step.size
    return Finding(
        ok=False,
        headline=f"the steps of {scale.label} are too small to learn (lr {number(lr)}): they change the weights by "
        f"{number(ratio)} of their norm (min_ratio={min_ratio:g}), and the loss stays at {number(scale.curve.late)}",
        culprit=scale.label,
        amount=ratio,
        limit=("min_ratio", min_ratio),
        step=0,
        table=_scale_table(trace, scale, 0),
        shows=f"All {counted(scale.curve.step.size, 'step')} together could move the weights by "
        f"{number(reach)} of their norm at most.",
        next_step="look at the schedule: the learning rate is 0 in every step"
        if stopped
        else "raise the learning rate (or the clip limit) until early updates are near 0.001 of the weights",
    )


def _scale_table(trace: Trace, scale: _Scale, at: int) -> Table:
    each = scale.by_parameter[at]
    order = np.argsort(-np.where(np.isfinite(each), each, -1))[:6]
    weight = trace.updates["weight"]
    row = int(np.flatnonzero(trace.updates["step"] == scale.at[at])[0])
    return Table(
        ("weight", "norm", "update", "ratio"),
        tuple(
            (
                trace.parameters[scale.columns[i]].name,
                float(weight[row, scale.columns[i]]),
                float(trace.updates["update"][row, scale.columns[i]]),
                float(each[i]),
            )
            for i in order
        ),
        culprit=0,
    )
