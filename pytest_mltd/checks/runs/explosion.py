"""How far gradients leave their own level, and whether the loss is harmed by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, trailing_median
from pytest_mltd.checks.runs.excerpts import curve_at, steps_table
from pytest_mltd.checks.runs.places import held_by, norm_rows, optimizer_label
from pytest_mltd.checks.runs.scales import first_gradient
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace


def measure_explosion(trace: Trace, optimizer: int, max_growth: float, warmup: int) -> tuple[float, int | None, int]:
    """Return the highest harmful growth, and the steps at which the one beyond the limit began and passed it."""
    at = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    norm = trace.steps["grad_norm_used"][at]
    bad = np.flatnonzero(~np.isfinite(norm))
    if bad.size:
        norm = norm[: bad[0]]
    if norm.size < warmup + 1:
        return 1.0, None, 0
    early = float(np.median(norm[:warmup]))
    level = np.fmin(np.fmax(trailing_median(norm), 1e-30), early)
    level[0] = math.inf
    with np.errstate(divide="ignore", over="ignore"):
        growth = np.where(level > 1e-12 * max(early, 1e-30), norm / np.fmax(level, 1e-30), 1.0)
    growth[:2] = np.minimum(growth[:2], 1.0)
    loss = trace.steps["loss"][at]
    candidates = np.flatnonzero(growth > min(max_growth, 4.0))
    highest = 1.0
    for i in candidates[_first_of_runs(candidates)][:200]:
        if not _harmed(loss, int(i)):
            continue
        peak = float(growth[i : i + 10].max())
        highest = max(highest, peak)
        over = np.flatnonzero(growth[i : i + 200] > max_growth)
        if over.size:
            onset = int(i)
            while (
                onset > 0 and growth[onset - 1] > 1.5
            ):  # it began where the norm left its level, not where it passed a limit
                onset -= 1
            return float(growth[i : i + 200].max()), int(at[onset]), int(at[i + over[0]])
    return highest, None, 0


def explodes_at_once(trace: Trace, optimizer: int, max_growth: float) -> Finding | None:
    """Return the finding of a first gradient far larger than the weights, where steps follow it and the loss suffers."""
    ratio = first_gradient(trace, optimizer)
    mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    loss = trace.steps["loss"][mine]
    after = loss[1:11]
    harmed = after.size and (not np.isfinite(after).all() or float(after[:3].max()) > 3 * abs(float(loss[0])))
    if not ratio > max_growth or not harmed:
        return None
    return explosion_finding(
        trace, int(mine[0]), int(mine[0]), ratio, optimizer, max_growth, "the norm of the weights, at once"
    )


def _first_of_runs(indexes: Any) -> Any:
    return np.concatenate([[True], np.diff(indexes) > 10]) if indexes.size else np.zeros(0, bool)


def _harmed(loss: Floats, at: int) -> bool:
    """Whether the losses after a step are not finite, or three times what they were, and no mere wiggle near zero."""
    before = loss[max(0, at - 25) : at]
    before = before[np.isfinite(before)]
    after = loss[at + 1 : at + 51]
    if not before.size or not after.size:
        return False
    if not np.isfinite(after).all():
        return True
    start = float(np.median(np.abs(loss[:3])))
    level = float(np.median(np.abs(before)))
    worst = max(float(np.median(after[i : i + 5])) for i in range(0, max(1, after.size - 4), 5))
    if _other_data(float(loss[at]), after, worst, start):
        return False
    return worst > 3 * level and worst > 0.5 * start


def _other_data(here: float, after: Floats, worst: float, start: float) -> bool:
    """Whether the loss was high before the step, no higher than at a start, and falls from there: new data, or a new task.

    Its large gradient is the answer to the loss, and not its cause.
    """
    return worst <= here <= 3 * start and float(np.median(after[-5:])) < 0.5 * start


def explosion_finding(
    trace: Trace,
    step: int,
    passed: int,
    growth: float,
    optimizer: int,
    max_growth: float,
    against: str = "its own level",
) -> Finding:
    columns = held_by(trace, optimizer)
    rows = norm_rows(trace, optimizer)
    here = rows[trace.parameter_norms["step"][rows] == passed]
    before = rows[trace.parameter_norms["step"][rows] < step][-25:]
    culprit, table = optimizer_label(trace, optimizer), steps_table(trace, step, curve_at(trace, step))
    if here.size and columns.size and not before.size:
        now = trace.parameter_norms["grad_used"][here[0], columns].astype(np.float64)
        largest = np.argsort(-now)[:5]
        culprit = trace.parameters[columns[largest[0]]].name
        norms = tuple((trace.parameters[columns[i]].name, float(now[i])) for i in largest)
        table = Table(("parameter", f"gradient norm at step {passed}"), norms, culprit=0)
    elif here.size and columns.size:
        now = trace.parameter_norms["grad_used"][here[0], columns].astype(np.float64)
        then = np.median(trace.parameter_norms["grad_used"][np.ix_(before, columns)].astype(np.float64), axis=0)
        ratio = np.where((then > 0) & (now > 0), now / np.fmax(then, 1e-30), 0.0)
        # the parameter that carries the explosion: among those that grew beyond all others, the one with the largest norm
        grew = ratio >= 0.3 * ratio.max()
        worst = int(np.argmax(np.where(grew, now, -1.0)))
        order = [worst, *(i for i in np.argsort(-now) if i != worst)][:5]
        culprit = trace.parameters[columns[worst]].name
        table = Table(
            ("parameter", "norm before", f"norm at step {passed}", "growth"),
            tuple((trace.parameters[columns[i]].name, float(then[i]), float(now[i]), float(ratio[i])) for i in order),
            culprit=0,
        )
    peak = f"{number(growth)} times {against} (max_growth={max_growth:g})"
    clipped = trace.of("clip").any()
    return Finding(
        ok=False,
        headline=f"the gradient of '{culprit}' explodes from step {step} on: the norm used by "
        f"{optimizer_label(trace, optimizer)} "
        f"reaches {peak}",
        culprit=culprit,
        amount=growth,
        limit=("max_growth", max_growth),
        step=step,
        table=table,
        shows="The losses after it are no longer finite or above three times what they were: these gradients "
        "harmed the weights." + ("" if clipped else " No gradient clipping was seen."),
        next_step="clip the norm between backward and step (torch.nn.utils.clip_grad_norm_), or lower what multiplies: "
        "recurrent weights, initialisation, learning rate"
        if not clipped
        else "lower the clip limit or the learning rate; clipping was called and did not hold the norm",
    )
