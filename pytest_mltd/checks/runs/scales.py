"""How large gradients and updates are against the weights they change, and whether the loss shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats, block_medians, curves, moving_target
from pytest_mltd.checks.runs.places import (
    at_site,
    counted,
    held_by,
    middle,
    norm_rows,
    optimizer_label,
    site_of,
    update_rows,
)
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace

_EXPLODED = 50.0  # a first gradient this many times the weights is at fault itself: `gradients.explosion` says so


@dataclass(frozen=True, slots=True)
class Scale:
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


def scale_of(trace: Trace, optimizer: int) -> Scale | None:
    owners = trace.steps["optimizer"]
    at = trace.updates["step"]
    rows = update_rows(trace, optimizer)
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
    return Scale(optimizer, optimizer_label(trace, optimizer), columns, at[rows], total, each, curve)


def too_large(trace: Trace, scale: Scale, max_ratio: float) -> Finding | None:
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
    highest = middle(np.sort(trace.steps["lr"][trace.steps["optimizer"] == scale.optimizer])[-5:])
    rate = f"lr {number(lr)}" + (f" there, up to {number(highest)} later" if highest > 1.5 * lr else "")
    peak = float(scale.curve.finite.max()) if scale.curve.finite.size else math.nan
    return Finding(
        ok=False,
        headline=f"the learning rate of {scale.label} is too high ({rate}): step {step} changes the weights by "
        f"{number(float(scale.ratio[at]))} of their norm (max_ratio={max_ratio:g}), and the loss suffers",
        culprit=scale.label,
        amount=float(scale.ratio[at]),
        limit=("max_ratio", max_ratio),
        step=step,
        table=_scale_table(trace, scale, at),
        shows=f"The loss begins at {number(start)}, peaks at {number(peak)} and ends at {number(late)}; "
        f"'{name}' is changed most. "
        "Steps this large overthrow the weights, and units can die of them.",
        next_step=f"try lr={number(lr / 100, 1)} to {number(lr / 10, 1)} there: early updates near 0.001 of the weights are "
        f"usual{at_site(_place(trace, scale.optimizer))}",
    )


def _place(trace: Trace, optimizer: int) -> str:
    """Return the line that made an optimizer, where its rate stands, else the line that calls its step."""
    known = optimizer < len(trace.optimizers)
    return (trace.optimizers[optimizer].site if known else "") or site_of(trace, "step")


def _clipped(trace: Trace, optimizer: int) -> str:
    """Say by how much clipping cut the gradients, where it took nearly all of them."""
    mine = trace.steps["optimizer"] == optimizer
    left, used = middle(trace.steps["grad_norm"][mine]), middle(trace.steps["grad_norm_used"][mine])
    limit = middle(trace.calls["value"][trace.of("clip")])
    if not (used > 0 and left > 1000 * used and math.isfinite(limit)):
        return ""
    where = at_site(site_of(trace, "clip"))
    return f" The clip limit {number(limit)} always decides{where}: it cuts gradients of {number(left)}."


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


def too_small(trace: Trace, scale: Scale, min_ratio: float) -> Finding | None:
    """Return the finding of steps that move nothing from the first on, where the loss did not move either."""
    usable = scale.ratio[np.isfinite(scale.ratio)]
    if (
        usable.size < 3
        or scale.curve is None
        or scale.curve.finite.size < 5
        or scale.curve.signed
        or moving_target(trace)
    ):
        return None
    ratio = float(np.median(usable))
    rates = trace.steps["lr"][trace.steps["optimizer"] == scale.optimizer]
    lr = float(np.fmax.reduce(rates, initial=-math.inf))
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
        table=_scale_table(trace, scale, 0),  # without a step: it is said of the whole run
        shows=f"All {counted(scale.curve.step.size, 'step')} together could move the weights by "
        f"{number(reach)} of their norm at most.{_clipped(trace, scale.optimizer)}",
        next_step="look at the schedule: the learning rate is 0 in every step"
        if stopped
        else "raise the learning rate (or the clip limit) until early updates are near 0.001 of the "
        f"weights{at_site(trace.optimizers[scale.optimizer].site)}",
    )


def _scale_table(trace: Trace, scale: Scale, at: int) -> Table:
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


def first_gradient(trace: Trace, optimizer: int) -> float:
    """Return the norm of the first gradient an optimizer used over the norm of its weights, where its steps follow that norm.

    0 for optimizers that scale each gradient themselves (Adam and its like), and where updates were not recorded.
    """
    at = trace.updates["step"]
    rows = update_rows(trace, optimizer)
    columns = held_by(trace, optimizer)
    if not rows.size or not columns.size:
        return 0.0
    row, step = int(rows[0]), int(at[rows[0]])
    update, weight = (_norm(trace.updates[name][row, columns]) for name in ("update", "weight"))
    grad, lr = float(trace.steps["grad_norm_used"][step]), float(trace.steps["lr"][step])
    if not weight > 0 or not grad > 0 or not 0.5 * lr * grad < update < 2 * lr * grad:
        return 0.0
    return grad / weight


def clip_cut(trace: Trace, optimizer: int) -> float:
    """Return how many times smaller clipping made the gradients of an optimizer whose steps follow them, in each step.

    0 where it cut less than a hundredfold (a guess) in any but a tenth of the steps, or a loss scale is in the gradients.
    """
    mine = trace.steps["optimizer"] == optimizer
    left, used = trace.steps["grad_norm"][mine], trace.steps["grad_norm_used"][mine]
    limits = trace.calls["value"][trace.of("clip")]
    known = np.isfinite(left) & np.isfinite(used) & (used > 0)
    if limits.size < 0.9 * left.size or not known.any() or (trace.steps["scale"][mine] > 1).any():
        return 0.0
    if not math.isfinite(middle(limits)) or not first_gradient(trace, optimizer) > 0:
        return 0.0
    times = left[known] / used[known]
    return float(np.median(times)) if (times > 100).mean() >= 0.9 else 0.0


def _norm(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    taken = np.fmax(values.astype(np.float64), 0.0)
    return float(np.sqrt((taken**2).sum()))
