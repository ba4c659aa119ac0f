"""The question about two runs that cannot be equal bit for bit: does what rounding explains explain how far they are apart?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, no_steps
from pytest_mltd.checks.runs.divergence import check_divergence, models_differ
from pytest_mltd.checks.runs.places import at_site, common_site, counted
from pytest_mltd.core.asking import asserting, check
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import NO_DIGEST, Trace, as_trace

_COLUMNS = (("loss", "loss"), ("grad_norm", "gradient norm"))
_SMALL = 0.05  # of the largest of the first five: a number near zero is all rounding, and is not held against itself; a guess


@check("two runs", explains=("*",), rank=6, family="runs")
def check_numerical_drift(
    first: Any, second: Any, *, rtol: float = 1e-3, max_jump: float = 1000.0, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether two runs of one training drift apart by more than rounding explains, and at which step that begins.

    For two versions, machines, thread counts or precisions, whose bits differ anyway. Rounding begins small and grows from
    step to step, also to large differences in the end: training amplifies it. Another cause shows at the first step, or as a
    jump. Losses and gradient norms are compared. Equal runs are said to be equal bit for bit.

    Args:
        first: a recording, a run or a trace.
        second: another one.
        rtol: the highest relative difference that rounding alone makes in one step (msprobe's convention is 1e-3 between
            two devices in float32; take 0.03 where one of the two computes in bfloat16 or float16).
        max_jump: the highest ratio of a difference above ``rtol`` to the largest one at any step before (measured between
            float32 and float64, two thread counts and weights moved by 1e-6, on an MLP and a convnet under Adam and SGD: up to
            160, where a unit of a diverging SGD run flips; a guess above that).
        allow: reasons by place (``loss``, ``gradient norm``).

    Raises:
        TypeError: one of them is no recorded run; the message begins with its argument's name.
        ValueError: a limit is out of range.
    """
    one, two = as_trace(first, "first"), as_trace(second, "second")
    if not rtol > 0:
        raise ValueError(f"rtol: a number above zero is needed, not {rtol!r}")
    if not max_jump > 1:
        raise ValueError(f"max_jump: a number above 1 is needed, not {max_jump!r}")
    for name, trace in (("first", one), ("second", two)):
        if reason := no_steps(trace):
            return not_asked(f"the {name} run: {reason}")
    if (other := models_differ(one, two)) is not None:
        return not_asked(other.headline, next_step=other.next_step)
    equal = check_divergence(one, two)
    if equal.asked and equal.ok:
        return Finding(ok=True, headline=f"{equal.headline} (rtol={rtol:g})", amount=0.0, looked_at=equal.looked_at)
    apart = {name: _apart(one, two, column) for column, name in _COLUMNS}
    apart = {name: values for name, values in apart.items() if values.size and np.isfinite(values).any()}
    if not apart:
        return not_asked("the runs have neither losses nor gradient norms in common")
    begun = {name: at for name, values in apart.items() if (at := _leaves(values, rtol, max_jump)) is not None}
    if begun:
        name = min(begun, key=lambda n: (begun[n], n != "loss"))
        return _drift_finding(one, two, name, begun[name], apart[name], (rtol, max_jump))
    last = {name: float(np.nanmax(values)) for name, values in apart.items()}
    return Finding(
        ok=True,
        headline=f"the runs drift apart as rounding does, without a jump: by up to {number(max(last.values()), 2)} "
        f"(rtol={rtol:g})",
        amount=max(last.values()),
        limit=("rtol", rtol),
        looked_at=f"{' and '.join(apart)} at {counted(min(one.n_steps, two.n_steps), 'step')}",
    )


assert_no_numerical_drift = asserting(check_numerical_drift)


def _apart(one: Trace, two: Trace, column: str) -> Floats:
    """Return the relative difference at each common step; infinite where only one of the two is finite."""
    length = min(one.n_steps, two.n_steps)
    a, b = (t.steps[column][:length].astype(np.float64) for t in (one, two))
    both = np.isfinite(a) & np.isfinite(b)
    size = np.fmax(np.abs(a), np.abs(b))
    early = size[:5][np.isfinite(size[:5])]
    floor = _SMALL * float(early.max(initial=0.0)) or 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a - b) / np.fmax(size, floor)
    known = ~np.isnan(a) | ~np.isnan(b)
    return np.where(both, apart, np.where(known & (np.isfinite(a) != np.isfinite(b)), np.inf, np.nan))


def _leaves(apart: Floats, rtol: float, max_jump: float) -> int | None:
    """Return the first step whose difference is above ``rtol`` and far above all before."""
    before = np.fmax.accumulate(np.concatenate([[0.0], apart[:-1]]))
    found = np.flatnonzero((apart > rtol) & (apart > max_jump * np.fmax(before, rtol / max_jump)))
    return int(found[0]) if found.size else None


def _drift_finding(one: Trace, two: Trace, name: str, step: int, apart: Floats, limits: tuple[float, float]) -> Finding:
    rtol, max_jump = limits
    column = next(c for c, n in _COLUMNS if n == name)
    a, b = (float(t.steps[column][step]) for t in (one, two))
    before = float(np.nanmax(apart[:step], initial=0.0))
    was = f"before it they were within {number(before, 2)}" if step else "and that is the first step"
    site = common_site(one, one.calls["site"][one.of("backward") & (one.calls["step"] == step)])
    shown = range(max(0, step - 3), min(apart.size, step + 3))
    return Finding(
        ok=False,
        headline=f"the runs drift apart at step {step} by more than rounding explains: {name} {number(a, 5)} and "
        f"{number(b, 5)}, {number(float(apart[step]), 2)} apart (rtol={rtol:g}, max_jump={max_jump:g}); {was}{at_site(site)}",
        culprit=name,
        amount=float(apart[step]),
        limit=("rtol", rtol),
        step=step,
        table=Table(
            ("step", f"{name}, run 1", f"{name}, run 2", "relative difference"),
            tuple((i, float(one.steps[column][i]), float(two.steps[column][i]), float(apart[i])) for i in shown),
            culprit=step - shown[0],
        ),
        shows=_shows(one, two, step),
        next_step="look at what is new at that step: the batch, the learning rate, a schedule, the mode of the model"
        if step
        else "compare the initial weights, the first batch and the loss function of the two runs",
        details={"step": step},
    )


def _shows(one: Trace, two: Trace, step: int) -> str:
    """Say what of that step's causes differs as well: the learning rate, the batches."""
    rates = [float(t.steps["lr"][step]) for t in (one, two)]
    if np.isfinite(rates).all() and not np.isclose(rates[0], rates[1], rtol=1e-6):
        return f"The learning rates differ there: {number(rates[0])} and {number(rates[1])}."
    batches = [t.calls["digest"][t.of("batch") & (t.calls["step"] == step)] for t in (one, two)]
    if all(b.size and (b != NO_DIGEST).all() for b in batches):
        same = batches[0].size == batches[1].size and bool((batches[0] == batches[1]).all())
        return "The batches of that step are the same." if same else "The batches of that step differ."
    return "Rounding begins small and grows from step to step; this did not."
