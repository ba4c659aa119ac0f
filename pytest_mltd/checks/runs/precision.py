"""Questions about half precision in a recorded run: a loss scale that is no use, updates that rounding swallows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, no_steps, no_training, too_short
from pytest_mltd.checks.runs.excerpts import curve_of
from pytest_mltd.checks.runs.places import (
    counted,
    gradients_at,
    held_by,
    made_at,
    not_recorded,
    optimizer_label,
    stepping,
    update_rows,
)
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace

# Bits of a weight behind its first: half the spacing at a weight w is 2**-(bits + 1) of the power of two below it.
_BITS = {"bfloat16": 7, "float16": 10}
# Their updates are about lr for each weight, whatever the gradient: the moments divide its size out.
_NORMALISED = frozenset({"Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop"})
_FALLS = 5  # of a scale in the second half of a run: a scaler finds its level in the first; a guess


@check("run", explains=("gradients.nonfinite", "gradients.explosion", "losses.*", "updates.*"), rank=14)
def check_loss_scale(
    run: Any, *, min_scale: float = 1.0, min_backwards: int = 20, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a GradScaler's loss scale became infinite, zero, or falls without end.

    A scaler that begins too high skips some steps, halves its scale at each, and then holds it: that is how it works. One that
    goes on halving in the second half of the run, below a scale that does anything, meets gradients that are infinite at any
    scale.

    Args:
        run: a recording, a run or a trace.
        min_scale: the lowest scale, a factor, that a falling one may reach (below 1, by definition, it makes gradients
            smaller).
        min_backwards: the fewest backwards, in place of steps, that are needed; a guess.
        allow: reasons by place (``GradScaler``).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_scale", min_scale), ("min_backwards", min_backwards)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    scale = trace.losses["scale"].astype(np.float64)
    if not (scale != 1).any():
        return no_occasion("no loss scale was seen (no GradScaler in use)")
    if reason := too_short(trace, scale.size, min_backwards, "backwards"):
        return not_asked(reason)
    broken = np.flatnonzero(~np.isfinite(scale) | (scale <= 0))
    if broken.size:
        return _unusable(trace, scale, int(broken[0]), min_scale)
    half = scale[scale.size // 2 :]
    falls = int((np.diff(half) < 0).sum())
    if falls >= _FALLS and not (np.diff(half) > 0).any() and half[-1] < min_scale and _finite(trace):
        return _falling(trace, scale, falls, min_scale)
    return Finding(
        ok=True,
        headline=f"the loss scale holds at {number(float(half[-1]))} (min_scale={min_scale:g})",
        amount=float(half[-1]),
        limit=("min_scale", min_scale),
        looked_at=f"{counted(scale.size, 'backward')}, {counted(int(trace.of('skipped_step').sum()), 'skipped step')}",
    )


@check("run", explains=("losses.*", "updates.*", "gradients.vanishing"), rank=16)
def check_lost_updates(
    run: Any, *, min_kept: float = 0.5, min_steps: int = 10, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether updates of half-precision weights are lost to rounding, so that the weights stand still.

    A bfloat16 weight has 8 significant bits: what is added to 0.1 must be above 0.0002 to change it. What the steps really
    changed is held against what the learning rate asks for, where the loss did not come down to half. Weights kept in float32,
    with autocast for the operations only, lose nothing.

    Args:
        run: a recording, a run or a trace.
        min_kept: the lowest share of the asked change, by norm, that the weights take up (exact arithmetic has 1; a guess).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_kept", min_kept), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_steps(trace) or not_recorded(trace, "updates", "updates"):
        return not_asked(reason)
    if not any(p.dtype in _BITS and p.optimizers for p in trace.parameters):
        return no_occasion("no weight that an optimizer holds is kept in half precision")
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    measured = [m for i in stepping(trace) if (m := _kept_by(trace, i)) is not None]
    if not measured:
        return not_asked(
            f"what a step should change is known of SGD, {', '.join(sorted(_NORMALISED))} only, with their gradients"
        )
    kept, allowed = sift(allow, [m.label for m in measured])
    worst = min((m for m in measured if m.label in kept), key=lambda m: m.kept, default=None)
    if worst is None or worst.kept >= min_kept or worst.typical >= worst.spacing / 4 or _came_down(trace, worst):
        least = min(m.kept for m in measured)
        return Finding(
            ok=True,
            headline=f"half-precision weights take up {number(least, 2)} of what steps ask for, or the loss came down "
            f"(min_kept={min_kept:g})",
            amount=least,
            limit=("min_kept", min_kept),
            looked_at=", ".join(f"{counted(m.steps, 'sampled step')} of {m.label}" for m in measured),
            allowed=allowed,
        )
    return _lost(trace, worst, min_kept, allowed)


assert_no_loss_scale = asserting(check_loss_scale)
assert_no_lost_updates = asserting(check_lost_updates)


# -- loss scale


def _finite(trace: Trace) -> bool:
    """Whether the losses stayed finite: where they did not, the NaN is the cause, and not the scale."""
    late = trace.losses["value"][-20:]
    return bool(np.isfinite(late).mean() > 0.5)


def _unusable(trace: Trace, scale: Floats, at: int, min_scale: float) -> Finding:
    step = int(trace.losses["step"][at])
    return Finding(
        ok=False,
        headline=f"the loss scale of the GradScaler is {number(float(scale[at]))} from step {step} on "
        f"(min_scale={min_scale:g})",
        culprit="GradScaler",
        amount=float(scale[at]),
        limit=("min_scale", min_scale),
        step=step,
        table=_scale_table(trace, scale, at),
        shows="No gradient can be computed with such a scale: all of them are zero, infinite or NaN.",
        next_step="look at init_scale, growth_factor and growth_interval of the GradScaler",
    )


def _falling(trace: Trace, scale: Floats, falls: int, min_scale: float) -> Finding:
    done, skipped = int(trace.of("step").sum()), int(trace.of("skipped_step").sum())
    below = int(np.flatnonzero(scale < min_scale)[0])
    return Finding(
        ok=False,
        headline=f"the loss scale falls without end, from {number(float(scale[0]))} to {number(float(scale[-1]))} "
        f"(min_scale={min_scale:g}): the GradScaler skips {skipped:,} of {counted(done + skipped, 'step')}, their "
        "gradients are not finite at any scale",
        culprit="GradScaler",
        amount=float(scale[-1]),
        limit=("min_scale", min_scale),
        step=int(trace.losses["step"][below]),
        table=_scale_table(trace, scale, below),
        shows=f"It was lowered {counted(falls, 'time')} in the second half of the run and never rose: at a scale this small "
        "nothing overflows any more, so the gradients are NaN or infinite by themselves.",
        next_step="run one step in float32 with torch.autograd.set_detect_anomaly(True): a division by zero, sqrt(0) or an "
        "activation beyond 65,504 makes them",
    )


def _scale_table(trace: Trace, scale: Floats, at: int) -> Table:
    shown = np.unique(np.append(np.linspace(0, scale.size - 1, 5).astype(int), at))
    rows = tuple(
        (int(i), int(trace.losses["step"][i]), float(scale[i]), float(trace.losses["value"][i])) for i in shown
    )
    return Table(("backward", "steps done", "scale", "loss"), rows, culprit=int(np.searchsorted(shown, at)))


# -- lost updates


@dataclass(frozen=True, slots=True)
class _Kept:
    """What half-precision weights of one optimizer took up of what its steps asked for."""

    optimizer: int
    label: str
    dtype: str
    columns: Sequence[int]
    steps: int
    kept: float  # median over the sampled steps, by norm
    each: Floats  # by parameter
    typical: float  # change asked for of one weight
    spacing: float  # between neighbouring numbers at the size of a usual weight


def _kept_by(trace: Trace, optimizer: int) -> _Kept | None:
    columns = [i for i in held_by(trace, optimizer) if trace.parameters[i].dtype in _BITS]
    columns = [i for i in columns if len(trace.parameters[i].shape) >= 2]
    rows = update_rows(trace, optimizer)
    lr = trace.steps["lr"][trace.updates["step"][rows]]
    rows = rows[lr >= 0.5 * lr.max(initial=0)]  # a warm-up begins with steps of nothing
    if not columns or rows.size < 3:
        return None
    asked = _asked(trace, optimizer, columns, rows)
    if asked is None:
        return None
    done = np.fmax(trace.updates["update"][np.ix_(rows, columns)].astype(np.float64), 0)
    weight = np.fmax(trace.updates["weight"][np.ix_(rows, columns)].astype(np.float64), 0)
    usable = (asked > 0).any(axis=1)
    if usable.sum() < 3:
        return None
    asked, done, weight = asked[usable], done[usable], weight[usable]
    sizes = float(sum(math.prod(trace.parameters[i].shape) for i in columns))
    whole = np.sqrt((done**2).sum(1)) / np.sqrt((asked**2).sum(1))
    each = np.median(done / np.where(asked > 0, asked, np.nan), axis=0)
    dtype = trace.parameters[columns[0]].dtype
    usual = float(np.median(np.sqrt((weight**2).sum(1) / sizes)))
    spacing = 2.0 ** (math.floor(math.log2(usual)) - _BITS[dtype]) if usual > 0 else 0.0
    typical = float(np.median(np.sqrt((asked**2).sum(1) / sizes)))
    label = optimizer_label(trace, optimizer)
    return _Kept(
        optimizer,
        label,
        dtype,
        columns,
        rows.size,
        float(np.median(whole)),
        each,
        typical,
        spacing,
    )


def _asked(trace: Trace, optimizer: int, columns: Sequence[int], rows: Any) -> Floats | None:
    """Return the norm of the change that each sampled step asks of each weight; None for optimizers whose rule is not known."""
    at = trace.updates["step"][rows]
    lr = trace.steps["lr"][at][:, None]
    used = gradients_at(trace, at)[:, columns]
    used = np.where(np.isfinite(used) & (used > 0), used, 0.0)
    kind = trace.optimizers[optimizer].name.partition(" ")[0] if optimizer < len(trace.optimizers) else ""
    if kind == "SGD":
        return np.asarray(lr * used)  # momentum only adds to it
    if kind in _NORMALISED:
        sizes = np.sqrt([math.prod(trace.parameters[i].shape) for i in columns])
        return np.asarray(np.where(used > 0, lr * sizes, 0.0))
    return None


def _came_down(trace: Trace, kept: _Kept) -> bool:
    curve = curve_of(trace, kept.optimizer)
    return curve is None or curve.finite.size < 5 or curve.signed or curve.late < 0.5 * curve.start


def _lost(trace: Trace, lost: _Kept, min_kept: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    curve = curve_of(trace, lost.optimizer)
    losses = f" The loss begins at {number(curve.start)} and ends at {number(curve.late)}." if curve is not None else ""
    order = np.argsort(np.nan_to_num(lost.each, nan=np.inf))[:6]
    return Finding(
        ok=False,
        headline=f"updates of {lost.label} are lost to rounding: {lost.dtype} weights take up {number(lost.kept, 2)} of what "
        f"its steps ask for (min_kept={min_kept:g}){made_at(trace, lost.optimizer)}",
        culprit=lost.label,
        amount=lost.kept,
        limit=("min_kept", min_kept),
        table=Table(
            ("weight", "dtype", "share kept"),
            tuple((trace.parameters[lost.columns[i]].name, lost.dtype, float(lost.each[i])) for i in order),
            culprit=0,
        ),
        shows=f"A step asks for {number(lost.typical, 2)} at a weight, where neighbouring {lost.dtype} numbers are "
        f"{number(lost.spacing, 2)} apart: less than half of that changes nothing.{losses}",
        next_step="keep the weights in float32 and use torch.autocast for the operations, or an optimizer with float32 copies",
        allowed=allowed,
    )
