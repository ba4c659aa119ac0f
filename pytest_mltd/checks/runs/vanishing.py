"""Whether gradients reach the first layers: exactly zero, or smaller from layer to layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats
from pytest_mltd.checks.runs.excerpts import curve_of
from pytest_mltd.checks.runs.places import listed, norm_rows
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace


def find_vanishing(
    trace: Trace, optimizer: int, columns: Any, min_ratio: float, min_steps: int
) -> tuple[Finding | None, float]:
    rows = norm_rows(trace, optimizer, most=400)
    curve = curve_of(trace, optimizer)
    if columns.size < 2 or rows.size < min_steps or curve is None:
        return None, math.inf
    if curve.signed or not curve.late > 0.2 * curve.start:
        return None, math.inf
    grad = trace.parameter_norms["grad"][np.ix_(rows, columns)].astype(np.float64)
    at = trace.parameter_norms["step"][rows]
    silent = _silent(trace, grad, at, columns, min_ratio)
    if silent is not None:
        return silent, 0.0
    return _fading(trace, grad, columns, curve, min_ratio)


def _silent(trace: Trace, grad: Floats, at: Any, columns: Any, min_ratio: float) -> Finding | None:
    """Return the finding of gradients that are exactly zero, for at least half the run, in at least half the weights."""
    arrives = grad >= 0
    zero = grad == 0
    last_alive = np.where((grad > 0).any(axis=0), grad.shape[0] - 1 - np.argmax((grad > 0)[::-1], axis=0), -1)
    tail = grad.shape[0] - 1 - last_alive
    dead = (tail >= max(10, 0.5 * grad.shape[0])) & zero.any(axis=0) & arrives.any(axis=0)
    considered = arrives.any(axis=0)
    if not considered.any() or dead.sum() < 2 or dead.sum() < 0.5 * considered.sum():
        return None
    index = int(np.flatnonzero(dead)[0])
    name = trace.parameters[columns[index]].name
    since = int(at[last_alive[index] + 1])
    names = [trace.parameters[i].name for i in columns[dead]]
    share = f"{int(dead.sum())} of {int(considered.sum())} weights"
    return Finding(
        ok=False,
        headline=f"the gradient of '{name}' is exactly zero {_from(since)}, as it is in {share} (min_ratio={min_ratio:g}), "
        "while the loss is still high",
        culprit=name,
        amount=0.0,
        limit=("min_ratio", min_ratio),
        step=since,
        table=Table(
            ("weight", "median norm", "steps with zero"),
            tuple(
                (
                    trace.parameters[columns[i]].name,
                    float(np.median(grad[:, i])),
                    f"{zero[:, i].mean():.0%}",
                )
                for i in range(min(columns.size, 10))
            ),
            culprit=index if index < 10 else None,
        ),
        shows=f"Gradients arrive and are zero in {listed(names)}: hidden layers whose units are all off pass "
        "nothing on (dead ReLU "
        "units, a saturated gate).",
        next_step="look at the outputs of the hidden layers there: all zero means dead units (initial bias, one huge step)",
    )


def _from(step: int) -> str:
    return "in every step" if step == 0 else f"from step {step} on"


def _fading(trace: Trace, grad: Floats, columns: Any, curve: Curve, min_ratio: float) -> tuple[Finding | None, float]:
    """Return the finding of gradients that shrink from layer to layer on their way back, and the ratio measured."""
    usable = (grad > 0).mean(axis=0) > 0.5
    columns, grad = columns[usable], grad[:, usable]
    if columns.size < 4:
        return None, math.inf
    early = np.median(np.where(grad >= 0, grad, np.nan)[: max(5, grad.shape[0] // 10)], axis=0)
    scale = _weight_norms(trace, columns)
    relative = early / scale
    first = float(np.nanmedian(relative[: max(1, columns.size // 6)]))
    ratio = first / float(np.nanmax(relative))
    change = np.diff(np.log(np.fmax(relative, 1e-300)))  # from layer to layer, on the way to the loss
    # Most layers add to it, or all but a little of the change is one way: the first layers may all be equally deaf.
    # Both shares are guesses; the second was set on one program (five seeds), and alarms on none of tests/faulty.
    rises = float((change > 0).mean()) >= 0.6 or -change[change < 0].sum() <= 0.25 * change[change > 0].sum()
    # One batch is a poor start of a loss that never moves: the lower of it and the first ten's median.
    stuck = curve.late > 0.8 * min(curve.start, float(np.median(curve.finite[:10])))
    if not (ratio < min_ratio and rises and stuck):
        return None, ratio
    shown = np.unique(np.linspace(0, columns.size - 1, min(columns.size, 8)).astype(int))
    name = trace.parameters[columns[0]].name
    return (
        Finding(
            ok=False,
            headline=f"the gradient of '{name}' vanishes: relative to its weights it is {number(ratio)} of the largest among "
            f"{columns.size} layers (min_ratio={min_ratio:g})",
            culprit=name,
            amount=ratio,
            limit=("min_ratio", min_ratio),
            step=0,
            table=Table(
                ("weight", "gradient norm", "relative to its weights"),
                tuple((trace.parameters[columns[i]].name, float(early[i]), float(relative[i])) for i in shown),
                culprit=0,
            ),
            shows=f"It shrinks from layer to layer on the way back, and the loss ends at {number(curve.late)} "
            f"after {number(curve.start)} at the start: the first layers do not learn.",
            next_step="use activations that do not saturate, normalisation, skip connections, or an initialisation that keeps "
            "the spread",
        ),
        ratio,
    )


def _weight_norms(trace: Trace, columns: Any) -> Floats:
    if trace.updates["step"].size:
        norms = trace.updates["weight"][:, columns].astype(np.float64)
        norms = np.where(norms > 0, norms, np.nan)
        known = ~np.isnan(norms)
        first = norms[np.argmax(known, axis=0), np.arange(columns.size)]
        if np.isfinite(first).all():
            return np.asarray(first, dtype=np.float64)
    return np.sqrt([max(1, math.prod(trace.parameters[i].shape)) for i in columns])
