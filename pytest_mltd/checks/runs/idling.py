"""The rule on a run that trains in all but the step: backward and clearing go on, and the optimizer never steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, curves
from pytest_mltd.checks.runs.places import at_site, counted, site_of
from pytest_mltd.core.asking import sift
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace

_FEWEST = 20  # backwards without a step; a guess
_CLEARED = 0.5  # of the backwards that zero_grad came with: one that accumulates for a long time clears seldom


def never_stepped(trace: Trace, allow: Mapping[str, str] | None) -> Finding | None:
    """Return the finding of an optimizer that is cleared for each backward and steps after none, the loss staying or halving.

    A scaler that skips steps, weights that move by hand, losses that come down, and a run that was cut are other matters.
    """
    losses, cleared = trace.losses["step"].size, int(trace.of("zero_grad").sum())
    if trace.n_steps or trace.cut or not trace.optimizers or losses < _FEWEST or cleared < _CLEARED * losses:
        return None
    if trace.of("step").any() or trace.of("skipped_step").any() or any(f.kind == "manual_update" for f in trace.facts):
        return None
    held = [p for p in trace.parameters if p.optimizers and p.requires_grad]
    curve = next(iter(curves(trace)), None)
    if not held or curve is None or curve.finite.size < _FEWEST:
        return None
    halves = _halves(curve)
    if not halves and not curve.late > 0.9 * curve.start:
        return None
    info = trace.optimizers[held[0].optimizers[0]]
    kept, _ = sift(allow, [info.name])
    if not kept:
        return None
    made = f", made at {info.site}" if info.site else ""
    return Finding(
        ok=False,
        headline=f"{info.name} never steps: backward ran {counted(losses, 'time')} and zero_grad "
        f"{counted(cleared, 'time')}{at_site(site_of(trace, 'zero_grad'))}, every optimizer step is skipped or missing{made}",
        culprit=info.name,
        amount=float(losses),
        step=0,
        table=Table(
            ("calls", "times"),
            (("backward", losses), ("zero_grad", cleared), ("step", 0)),
            culprit=2,
        ),
        shows=f"The {counted(len(held), 'parameter')} that it holds keep their initial values; the loss begins at "
        f"{number(curve.start)} and ends at {number(curve.late)}."
        + (" It halves each time: its loss scale keeps falling." if halves else ""),
        next_step="call optimizer.step() after backward; where a condition guards it (a loss scaler of your own, a check for "
        "finite gradients), print which gradient fails it: NaN stays NaN at any loss scale",
    )


def _halves(curve: Curve) -> bool:
    """Whether each loss is about half of the one before, to the end: a loss scale in it does that, no training."""
    v = curve.finite
    if not (v > 0).all():
        return False
    return bool(0.45 < float(np.median(v[1:] / v[:-1])) < 0.55 and np.log2(v[0] / v[-1]) > 0.9 * (v.size - 1))
