"""The question about how a loss is reduced: a sum over the rows where the learning rate was meant for a mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, curves, no_steps
from pytest_mltd.checks.runs.places import counted, held_by, listed, optimizer_label
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace, as_trace

_EARLY = 5  # steps whose updates are looked at
_SCALE_FREE = ("Adam", "Lion", "RMSprop", "Rprop", "Adagrad", "Adadelta", "Adafactor", "NAdam", "LBFGS", "Muon")


@check(
    "run",
    explains=("updates.*", "gradients.explosion", "gradients.nonfinite", "losses.*", "activations.*"),
    rank=9,
    family="objective",
)
def check_summed_loss(run: Any, *, max_update: float = 0.1, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether training fails because the loss is a sum over the rows and the learning rate was meant for their mean.

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
    summed = [f for f in trace.facts if f.kind in ("term", "targets") and _times(f) >= 8]
    optimizer = int(trace.steps["optimizer"][0])
    label = optimizer_label(trace, optimizer)
    if not summed:
        return no_occasion("no loss that is a sum over rows was seen in the graphs of the losses")
    if any(name in label for name in _SCALE_FREE):
        return no_occasion(f"{label} takes steps of the same size for a sum and a mean")
    ratio = _early_ratio(trace, optimizer)
    if ratio is None:
        return not_asked("the updates of the first steps were not recorded")
    by_name = {c.name: c for c in curves(trace)}
    kept, allowed = sift(allow, dict.fromkeys(f.who for f in summed))
    failing = [f for f in summed if f.who in kept and f.who in by_name and _fails(by_name[f.who])]
    if failing and ratio > max_update:
        return _finding(failing[0], by_name[failing[0].who], label, ratio, max_update, allowed)
    return Finding(
        ok=True,
        headline=f"the summed loss trains, or its first updates are {number(ratio)} of the weights (max_update={max_update:g})",
        amount=ratio,
        limit=("max_update", max_update),
        looked_at=f"losses of {listed(list(dict.fromkeys(f.who for f in summed)))}",
        allowed=allowed,
    )


assert_no_summed_loss = asserting(check_summed_loss)


def _times(fact: Fact) -> float:
    """Return how many times its mean a loss is, 0 where it is no sum or that is not known."""
    d = fact.details
    known = d.get("reduction") == "sum" and d.get("loss") not in ("", "product", None)
    return abs(float(d["factor"])) * int(d.get("rows", 0)) if known and d.get("factor") is not None else 0.0


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


def _fails(curve: Curve) -> bool:
    return bool(curve.finite.size < curve.value.size or not curve.late < curve.start)


def _finding(
    fact: Fact, curve: Curve, label: str, ratio: float, max_update: float, allowed: tuple[tuple[str, str], ...]
) -> Finding:
    rows = int(fact.details["rows"])
    times = _times(fact)
    shown = range(min(5, curve.value.size))
    return Finding(
        ok=False,
        headline=f"the loss of '{fact.who}' is a sum over {counted(rows, 'row')} ({fact.details['loss']}), {number(times)} "
        f"times its mean: the first updates of {label} are {number(ratio)} of the weights (max_update={max_update:g})",
        culprit=fact.who,
        amount=ratio,
        limit=("max_update", max_update),
        step=fact.step,
        table=Table(("step", "loss"), tuple((int(curve.step[i]), float(curve.value[i])) for i in shown), 0),
        shows="The loss rises or overflows from these steps on: a learning rate that suits a mean is too high for the sum.",
        next_step=f"use the mean (reduction='mean'), or divide the learning rate by {number(times)}",
        allowed=allowed,
    )
