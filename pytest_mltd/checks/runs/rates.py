"""Questions about the learning rate as the losses show it: steps too short to learn anything, or too long to keep
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.constant_answers import constant_answer, gain_over
from pytest_mltd.checks.runs.curves import Curve, Floats, curves, moving_target, no_steps, no_training, too_short
from pytest_mltd.checks.runs.places import (
    at_site,
    counted,
    held_by,
    made_at,
    middle,
    not_recorded,
    optimizer_label,
    site_of,
    stepping,
)
from pytest_mltd.checks.runs.scales import clip_cut
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", explains=("losses.plateau",), rank=55, family="losses")
def check_rate_too_low(
    run: Any,
    *,
    min_reach: float = 0.1,
    max_gain: float = 0.03,
    min_steps: int = 100,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the steps were too short to take anything off the loss, though the gradients were of a usual size.

    A step changes the loss by no more than the product of its length and the gradient's (to first order; Cauchy and Schwarz).
    The sum of these products over the run is as far as the loss could come down. Gradients are of a usual size where moving
    the weights by a tenth of their norm could change the loss by a hundredth; others vanish, which is another question.
    Where clipping cuts nearly all of each gradient it is the reason, whatever little was gained.

    Args:
        run: a recording, a run or a trace.
        min_reach: the lowest share of the first loss that all steps together could take off (a guess; healthy programs of
            tests/faulty that gained nothing stay above 0.04).
        max_gain: the share of a constant answer's loss from which on something was learned, three times as much of the first
            level; a guess.
        min_steps: the fewest steps that are needed, five times as many for a run that was cut; a guess.
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (("min_reach", min_reach), ("max_gain", max_gain), ("min_steps", min_steps)):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    need = min_steps * (5 if trace.cut else 1)
    reason = no_steps(trace) or not_recorded(trace, "updates", "updates") or too_short(trace, trace.busiest, need)
    if reason or (reason := _several(trace)):
        return not_asked(reason)
    label = optimizer_label(trace, stepping(trace)[0])
    kept, allowed = sift(allow, [label])
    found = curves(trace)
    if not found or found[0].signed or found[0].finite.size < found[0].value.size:
        return not_asked("there is no loss, positive and finite, to hold the steps against")
    cut = clip_cut(trace, stepping(trace)[0])
    reach = _reach(trace, found[0], "grad" if cut else "grad_used")
    if reach is None:
        return not_asked("lengths of steps and gradients are not known for the same steps")
    base = constant_answer(trace, found[0])
    little = bool(cut) or (base is not None and gain_over(found[0], base.level) < max_gain)
    stayed = little and found[0].late > (1 - 3 * max_gain) * found[0].start
    if kept and stayed and 0 < reach.share < min_reach and reach.pull >= 0.1:
        return _too_low_finding(trace, label, found[0], reach, min_reach, allowed, cut)
    return Finding(
        ok=True,
        headline=f"the steps could take {number(reach.share)} of its first level off the loss, or it came down, or the "
        f"gradients are small themselves (min_reach={min_reach:g})",
        amount=reach.share,
        limit=("min_reach", min_reach),
        looked_at=f"{counted(trace.n_steps, 'step')} of {label}",
        allowed=allowed,
    )


@check("run", explains=("losses.plateau",), rank=62, family="losses")
def check_oscillation(
    run: Any,
    *,
    max_relapses: int = 3,
    max_logged_relapses: int = 6,
    min_update: float = 0.01,
    min_steps: int = 60,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether the loss lost most of what it had gained again and again, because the steps are too long.

    A relapse is a fall below a third of the first level followed by a rise above two thirds of it, both held for the median of
    five steps. Noise between batches does not do that, a new task or a curriculum does it once or twice. That the steps are
    too long is seen in what they change of the weights; where that was not recorded, twice as many relapses are needed.

    Args:
        run: a recording, a run or a trace.
        max_relapses: how many times it may happen; a guess (healthy programs of tests/faulty: none where steps are long).
        max_logged_relapses: the same of a log, where the length of steps is not known and cannot clear a noisy loss: twice as
            many, a guess.
        min_update: the norm of an update over that of the weights, median over the run, from which on steps are long
            (CS231n calls the ratio 1e-3 healthy and 1e-2 high).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by loss stream.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    for name, value in (
        ("max_relapses", max_relapses),
        ("max_logged_relapses", max_logged_relapses),
        ("min_update", min_update),
        ("min_steps", min_steps),
    ):
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
    if reason := no_training(trace):
        return not_asked(reason)
    if moving := moving_target(trace):
        return not_asked(f"losses may honestly rise and fall here: {moving}")
    if len(stepping(trace)) > 1:
        return not_asked("several optimizers trained: a rise may be the beginning of another training")
    kept, allowed = sift(allow, [c.name for c in curves(trace)])
    judged = [c for c in curves(trace) if c.name in set(kept) and c.finite.size and not c.signed and not c.noisy]
    long = [c for c in judged if c.finite.size >= min_steps]
    if not long:
        most = max((c.finite.size for c in judged), default=0)
        return not_asked(too_short(trace, most, min_steps, "steps of a loss that keeps its sign"))
    update = _usual_update(trace)
    name, limit = ("max_logged_relapses", max_logged_relapses) if update is None else ("max_relapses", max_relapses)
    found = [(_relapses(c), c) for c in long]
    relapses, curve = max(found, key=lambda pair: len(pair[0]))
    if len(relapses) > limit and (update is None or update > min_update):
        return _oscillation_finding(trace, curve, relapses, update, (name, limit), allowed)
    return Finding(
        ok=True,
        headline=f"the loss keeps what it gains, or loses it {counted(len(relapses), 'time')} for other reasons "
        "than long steps "
        f"({name}={limit:g})",
        amount=len(relapses),
        limit=(name, limit),
        looked_at=", ".join(f"{counted(c.finite.size, 'value')} of {c.name}" for c in long[:5]),
        allowed=allowed,
    )


assert_no_rate_too_low = asserting(check_rate_too_low)
assert_no_oscillation = asserting(check_oscillation)


def _several(trace: Trace) -> str:
    """Say why steps and loss cannot be held against each other, or return ""."""
    if len(stepping(trace)) != 1:
        return "not one optimizer, but several made the steps"
    if moving := moving_target(trace):
        return f"the loss may honestly stay here: {moving}"
    return ""


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far the steps could take the loss. ``pull``: what moving the weights by their own norm could change, both as
    shares of the first loss."""

    share: float
    pull: float
    update: float
    gradient: float
    weight: float


def _reach(trace: Trace, curve: Curve, gradients: str) -> _Reach | None:
    optimizer = stepping(trace)[0]
    columns = held_by(trace, optimizer)
    shared, rows, norm_at = np.intersect1d(trace.updates["step"], trace.parameter_norms["step"], return_indices=True)
    mine = shared[shared < trace.n_steps]
    if mine.size < 3 or not columns.size:
        return None
    rows, norm_at = rows[: mine.size], norm_at[: mine.size]
    update, weight = (_taken(trace.updates[name][np.ix_(rows, columns)]) for name in ("update", "weight"))
    gradient = _taken(trace.parameter_norms[gradients][np.ix_(norm_at, columns)])
    if not np.isfinite(update).all() or not np.isfinite(gradient).all() or not weight.any():
        return None
    first = curve.start
    return _Reach(
        share=float((update * gradient).sum(1).mean()) * trace.n_steps / first,
        pull=float(np.median((weight * gradient).sum(1))) / first,
        update=float(np.median(_length(update))),
        gradient=float(np.median(_length(gradient))),
        weight=float(np.median(_length(weight))),
    )


def _taken(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Floats:
    wide = values.astype(np.float64)
    return np.asarray(np.where(wide < 0, 0.0, wide), dtype=np.float64)


def _length(rows: Floats) -> Floats:
    return np.asarray(np.sqrt((rows**2).sum(1)), dtype=np.float64)


def _too_low_finding(
    trace: Trace,
    label: str,
    curve: Curve,
    reach: _Reach,
    min_reach: float,
    allowed: tuple[tuple[str, str], ...],
    cut: float,
) -> Finding:
    lr, ratio = middle(trace.steps["lr"]), reach.update / reach.weight
    limit = number(middle(trace.calls["value"][trace.of("clip")]))
    reason = (
        f"the clip limit {limit} is too small{at_site(site_of(trace, 'clip'))}: gradients of {number(reach.gradient)} are "
        f"clipped in every step of {label}, {number(cut)} times"
        if cut
        else f"the learning rate of {label} is too low (lr {number(lr)}{made_at(trace, stepping(trace)[0])})"
    )
    return Finding(
        ok=False,
        headline=f"{reason}{', and' if cut else ':'} all {counted(trace.n_steps, 'step')} together can take "
        f"{number(reach.share)} of its first level off the loss "
        f"(min_reach={min_reach:g})",
        culprit=label,
        amount=reach.share,
        limit=("min_reach", min_reach),
        table=Table(
            ("median over the run", "value"),
            (
                ("length of a step", reach.update),
                ("norm of the gradient", reach.gradient),
                ("norm of the weights", reach.weight),
                ("loss at the start", curve.start),
                ("loss at the end", curve.late),
            ),
            culprit=0,
        ),
        shows="The gradients are of a usual size; a step cannot take more off the loss than its length times the "
        "gradient.",
        next_step=f"clip at the norm that gradients usually have, {number(reach.gradient, 1)}, or above"
        if cut
        else f"try lr={number(lr * max(10.0, 1e-3 / ratio), 1)}: early updates near 0.001 of the weights are "
        "usual, "
        f"here they are {number(ratio)}",
        allowed=allowed,
    )


def _usual_update(trace: Trace) -> float | None:
    """Return the median ratio of an update to the weights it changes, None where it was not recorded."""
    if not stepping(trace) or not trace.updates["step"].size:
        return None
    columns = [i for i in held_by(trace, stepping(trace)[0]) if len(trace.parameters[i].shape) >= 2]
    if not columns:
        return None
    update, weight = (_length(_taken(trace.updates[name][:, columns])) for name in ("update", "weight"))
    with np.errstate(invalid="ignore"):
        return middle(update[weight > 0] / weight[weight > 0])


def _relapses(curve: Curve) -> list[int]:
    """Return the places at which the loss was high again after it had been low: over two thirds, after under one
    third."""
    v = curve.finite
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(v, 5), axis=1) if v.size >= 5 else v
    state = np.where(smooth < curve.start / 3, -1, np.where(smooth > curve.start * 2 / 3, 1, 0))
    told = np.flatnonzero(state)
    turned = np.flatnonzero(np.diff(state[told]) == 2)
    return [int(i) + 2 for i in told[turned + 1]]


def _oscillation_finding(
    trace: Trace,
    curve: Curve,
    relapses: list[int],
    update: float | None,
    limit: tuple[str, int],
    allowed: tuple[tuple[str, str], ...],
) -> Finding:
    v, step = curve.finite, int(curve.step[relapses[0]])
    rows = []
    for begin, end in zip([0, *relapses[:4]], relapses[:5], strict=False):
        low = begin + int(np.argmin(v[begin : end + 1]))
        rows.append((int(curve.step[low]), float(v[low]), int(curve.step[end]), float(v[end])))
    lr = middle(trace.steps["lr"]) if trace.n_steps else float("nan")
    said = (
        ""
        if update is None
        else f" A usual step changes the weights by {number(update)} of their norm; 0.001 is healthy."
    )
    return Finding(
        ok=False,
        headline=f"the loss of '{curve.name}' oscillates: from step {step} on it lost most of what it had gained "
        f"{counted(len(relapses), 'time')} ({limit[0]}={limit[1]:g}), and ends at {number(curve.late)} after "
        f"{number(curve.start)} at the start",
        culprit=curve.name,
        amount=len(relapses),
        limit=limit,
        step=step,
        table=Table(("low at step", "loss", "high again at step", "loss there"), tuple(rows), culprit=0),
        shows=f"Steps this long jump over the minimum: the learning rate is too high.{said}",
        next_step="try "
        + (f"lr={number(lr / 10, 1)}" if np.isfinite(lr) and lr > 0 else "a tenth of the learning rate")
        + "; if it still swings, look for batches of two kinds that take turns",
        allowed=allowed,
    )
