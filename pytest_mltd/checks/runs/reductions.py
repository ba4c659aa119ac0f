"""The question about how a loss is reduced: a sum, over rows or backwards, where the learning rate was meant for a mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, curves, no_steps
from pytest_mltd.checks.runs.places import counted, held_by, listed, optimizer_label, stepping
from pytest_mltd.checks.runs.scales import scale_of, too_large
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace, as_trace

_EARLY = 5  # steps whose updates are looked at
_OVERTHROWN = 0.3  # of the weights in one step, as `updates.update_scale` asks by default
_SCALE_FREE = ("Adam", "Lion", "RMSprop", "Rprop", "Adagrad", "Adadelta", "Adafactor", "NAdam", "LBFGS", "Muon")


@check(
    "run",
    explains=("updates.*", "gradients.explosion", "gradients.nonfinite", "losses.*", "activations.*"),
    rank=9,
    family="objective",
)
def check_summed_loss(run: Any, *, max_update: float = 0.1, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether training fails because the loss is a sum over the rows and the learning rate was meant for their mean.

    Likewise means whose gradients are accumulated over many backwards for each step, not divided by their number.

    A sum is as good as a mean with a smaller rate, and Adam and its kin do not feel the difference: only where an optimizer
    that does takes large steps, and the loss then rises or overflows, is it called the cause.

    Args:
        run: a recording, a run or a trace.
        max_update: the highest ratio of an update's norm to its weight's in the first five steps, the median over the
            parameters (CS231n: 1e-3 is healthy; a hundred times that is a guess).
        allow: reasons by loss stream (the line of backward).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_update`` is not positive.
    """
    trace = as_trace(run)
    if not max_update > 0:
        raise ValueError(f"max_update: a ratio above 0 is needed, not {max_update!r}")
    if reason := no_steps(trace):
        return not_asked(reason)
    summed = [f for f in trace.facts if f.kind in ("term", "targets") and _times(trace, f) >= 8]
    optimizer = int(trace.steps["optimizer"][0])
    label = optimizer_label(trace, optimizer)
    if not summed:
        return no_occasion("no loss that is a sum over rows, or over backwards, was seen in the graphs of the losses")
    if any(name in label for name in _SCALE_FREE):
        return no_occasion(f"{label} takes steps of the same size for a sum and a mean")
    ratio = _early_ratio(trace, optimizer)
    if ratio is None:
        return not_asked("the updates of the first steps were not recorded")
    by_name = {c.name: c for c in curves(trace)}
    kept, allowed = sift(allow, dict.fromkeys(f.who for f in summed))
    overthrown = _overthrown(trace, optimizer)
    failing = [f for f in summed if f.who in kept and f.who in by_name and (overthrown or _fails(by_name[f.who]))]
    if failing and ratio > max_update:
        return _finding(trace, failing[0], by_name[failing[0].who], label, ratio, max_update, allowed)
    return Finding(
        ok=True,
        headline=f"the summed loss trains, or its first updates are {number(ratio)} of the weights (max_update={max_update:g})",
        amount=ratio,
        limit=("max_update", max_update),
        looked_at=f"losses of {listed(list(dict.fromkeys(f.who for f in summed)))}",
        allowed=allowed,
    )


assert_no_summed_loss = asserting(check_summed_loss)


def _times(trace: Trace, fact: Fact) -> float:
    """Return how many times its mean what a step adds up is, 0 where it is no sum or that is not known."""
    d = fact.details
    if d.get("loss") in ("", "product", None) or d.get("factor") is None:
        return 0.0
    count = {"sum": int(d.get("rows", 0)), "mean": _accumulated(trace, fact)}.get(str(d.get("reduction")), 0)
    return abs(float(d["factor"])) * count


def _accumulated(trace: Trace, fact: Fact) -> int:
    """Return over how many backwards of this loss the gradients of a step are accumulated, one optimizer making the steps."""
    if fact.who not in trace.streams or not trace.n_steps or len(stepping(trace)) > 1:
        return 0
    mine = int((trace.losses["stream"] == trace.streams.index(fact.who)).sum())
    return min(mine // trace.n_steps, int(np.median(trace.steps["backwards"])))


def _early_ratio(trace: Trace, optimizer: int) -> float | None:
    """Return the median ratio of update to weight in the first steps, over parameters with at least two axes."""
    columns = [i for i in held_by(trace, optimizer) if len(trace.parameters[i].shape) > 1]
    rows = trace.updates["step"] < _EARLY
    update, weight = (trace.updates[name][rows][:, columns] for name in ("update", "weight"))
    known = (update >= 0) & (weight > 0)
    if not known.any():
        return None
    ratios = update[known].astype(np.float64) / weight[known]
    return float(np.median(ratios))


def _overthrown(trace: Trace, optimizer: int) -> bool:
    """Whether the first steps are what `updates.update_scale` fails on: the sum is why, though the loss came down a little."""
    scale = scale_of(trace, optimizer)
    return scale is not None and too_large(trace, scale, _OVERTHROWN) is not None


def _fails(curve: Curve) -> bool:
    return bool(curve.finite.size < curve.value.size or not curve.late < curve.start)


def _finding(
    trace: Trace,
    fact: Fact,
    curve: Curve,
    label: str,
    ratio: float,
    max_update: float,
    allowed: tuple[tuple[str, str], ...],
) -> Finding:
    times = _times(trace, fact)
    summed = fact.details["reduction"] == "sum"
    rows = counted(int(fact.details["rows"]), "row")
    backwards = counted(_accumulated(trace, fact), "backward")
    what = (
        f"is a sum over {rows} ({fact.details['loss']}), {number(times)} times its mean"
        if summed
        else f"is accumulated over {backwards} for each step, and not divided by their number"
    )
    shown = range(min(5, curve.value.size))
    return Finding(
        ok=False,
        headline=f"the loss of '{fact.who}' {what}: the first updates of {label} are "
        f"{number(ratio)} of the weights (max_update={max_update:g})",
        culprit=fact.who,
        amount=ratio,
        limit=("max_update", max_update),
        step=fact.step,
        table=Table(("step", "loss"), tuple((int(curve.step[i]), float(curve.value[i])) for i in shown), 0),
        shows="The loss rises or overflows from these steps on: a learning rate that suits a mean is too high for the sum.",
        next_step=("use the mean (reduction='mean')" if summed else "divide the loss by their number before backward")
        + f", or divide the learning rate by {number(times)}",
        allowed=allowed,
    )
