"""Where a NaN or an infinity came into a run: the first step, and the place within it."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, Floats
from pytest_mltd.checks.runs.excerpts import curve_at, steps_table
from pytest_mltd.checks.runs.places import at_site, counted
from pytest_mltd.core.findings import Finding
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Fact, Trace


def first_nonfinite(trace: Trace) -> int | None:
    """Return the first step whose loss or used gradient is not finite, unless something kept it from the weights."""
    loss, owners = trace.steps["loss"], trace.steps["optimizer"]
    had_loss = trace.steps["backwards"] > 0
    bad = (trace.steps["nonfinite"] > 0) | (had_loss & ~np.isfinite(loss))
    if not trace.n_steps or trace.level == "scalars":
        return _first_logged(trace)
    if not bad.any():
        return None
    begun = []
    for optimizer in np.unique(owners[bad]):
        mine = np.flatnonzero(owners == optimizer)
        wrong = mine[bad[mine]]
        unguarded = wrong[trace.steps["nonfinite"][wrong] == 0]  # such a loss was used: its gradients were finite
        if wrong.size and (unguarded.size or not _recovered(trace, bad, mine, int(wrong[0]))):
            begun.append(int(wrong[0]))
    return min(begun, default=None)


def _first_logged(trace: Trace) -> int | None:
    """Return the same of scalars, which are there at some steps only.

    What comes back did not reach the weights: a batch that was left out, a step that a scaler skipped. A stretch counts that
    lasts to the end; of norms at least three.
    """
    bad = trace.steps["nonfinite"] > 0
    norms = np.flatnonzero(bad | np.isfinite(trace.steps["grad_norm"]) | np.isfinite(trace.steps["grad_norm_used"]))
    begun = [
        *_last_stretch(trace.losses["step"], ~np.isfinite(trace.losses["value"]), least=1),
        *_last_stretch(norms, bad[norms], least=3),
    ]
    return min(begun, default=None)


def _last_stretch(at: Any, bad: Any, least: int) -> list[int]:
    """Return where the bad rows begin that last to the end, nothing where there are fewer than ``least``."""
    good = np.flatnonzero(~bad)
    first = int(good[-1]) + 1 if good.size else 0
    return [int(at[first])] if bad.size - first >= least else []


def always_skipped(trace: Trace) -> Finding | None:
    """Return the finding of a loss scale at which gradients stay infinite: the scaler skips most steps, the last ones too."""
    done = np.flatnonzero(trace.of("step") | trace.of("skipped_step"))
    skipped = trace.of("skipped_step")[done]
    if skipped.sum() < 20 or skipped.mean() <= 0.5 or not skipped[-5:].all():
        return None
    first = int(trace.calls["step"][done[np.argmax(skipped)]])
    count = f"{int(skipped.sum()):,} of {done.size:,} steps"
    return Finding(
        ok=False,
        headline=f"gradients are not finite in {count}, the last ones too: the GradScaler skips them, and nothing is learned",
        culprit="GradScaler",
        amount=float(skipped.mean()),
        step=first,
        shows="A scaler skips the first steps until its scale fits; here it goes on: the scale is never lowered, or the "
        "gradients are infinite at any scale.",
        next_step="call scaler.update() after each scaler.step(); if it is there, run one step in float32 and look for inf",
    )


def _recovered(trace: Trace, bad: Any, mine: Any, first: int) -> bool:
    """Whether the steps after a bad one are good again, and the weights finite: the step was kept from them."""
    after = mine[mine > first]
    if after.size < 3 or bad[after[-3:]].any() or bad[mine].mean() > 0.1:
        return False
    later = trace.updates["step"] > first
    return bool(later.any() and np.isfinite(trace.updates["weight"][later]).all())


def nonfinite_finding(trace: Trace, step: int) -> Finding:
    born = next((f for f in trace.facts if f.kind == "nonfinite" and f.step <= step + 1), None)
    curve = curve_at(trace, step)
    value = _loss_at(trace, step)
    loss_is_bad = not np.isfinite(value) and (trace.level != "scalars" or _was_logged(trace, step))
    place, where = _birthplace(trace, step, born, not loss_is_bad, curve)
    if loss_is_bad:
        what = f"the loss is {number(value)} {_since(trace, step)}{where}"
    else:
        whose = f"the gradient of '{place}' is" if place != "gradients" else "the gradients are"
        beside = f", while the loss there is {number(value)}" if np.isfinite(value) else ""
        what = f"{whose} not finite from step {step} on{beside}"
    before = curve.value[curve.step < step] if curve else np.zeros(0)
    before = before[np.isfinite(before)]
    if before.size and loss_is_bad:
        what += f"; the last finite one was {number(before[-1])}"
    return Finding(
        ok=False,
        headline=what,
        culprit=place,
        step=step,
        table=steps_table(trace, step, curve),
        shows=_nonfinite_shows(before, not loss_is_bad, born),
        next_step="mltd.locate_nonfinite(train), or of the script's path, runs it again and names the operation, its line and "
        "what it was given",
    )


def _loss_at(trace: Trace, step: int) -> float:
    """Return the loss of a step, NaN where none is known."""
    if trace.level == "scalars" or not trace.n_steps:
        known = trace.losses["value"][trace.losses["step"] == step]
        return float(known[-1]) if known.size else math.nan
    return float(trace.steps["loss"][step]) if step < trace.n_steps else math.nan


def _was_logged(trace: Trace, step: int) -> bool:
    return bool((trace.losses["step"] == step).any())


def _since(trace: Trace, step: int) -> str:
    """Say from when on the loss is not finite, or at which step, where it comes back."""
    loss = trace.steps["loss"][step:]
    if not trace.n_steps or trace.level == "scalars":
        loss = trace.losses["value"][trace.losses["step"] >= step]
    wrong = int((~np.isfinite(loss)).sum())
    if not np.isfinite(loss[-3:]).all() or loss.size < 4:
        return f"from step {step} on"
    return f"at step {step}" + (f" and {counted(wrong - 1, 'later step')}" if wrong > 1 else "")


def _birthplace(trace: Trace, step: int, born: Fact | None, loss_finite: bool, curve: Curve | None) -> tuple[str, str]:
    """Return the plain name of the place, and the words that say it after "from step n on"."""
    if born is not None and not loss_finite:
        return _made_by(born, _first_bad_module(trace, step))
    if loss_finite:
        norms = trace.parameter_norms
        row = np.flatnonzero(norms["step"] == step)
        if row.size:
            wrong = np.flatnonzero(~np.isfinite(norms["grad_used"][row[0]]))
            if wrong.size:
                return trace.parameters[wrong[-1]].name, ""
        return "gradients", ""
    module = _first_bad_module(trace, step)
    if module:
        return module, f", first in the output of '{module}'"
    name = curve.name if curve else "loss"
    return name, f" in '{name}'" if curve else ""


def _made_by(born: Fact, module: str) -> tuple[str, str]:
    """Return the operation that the recorder saw, and where it stood and what it was given as far as that is known."""
    operation = re.sub(r"Backward\d*$", "", str(born.details.get("operation", ""))) or "loss"
    operation = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()
    if operation == "data":
        return "data", ", which the data held already"
    low, high = born.details.get("low"), born.details.get("high")
    known = isinstance(low, int | float) and isinstance(high, int | float)
    least, most = (number(float(v)) if known else "" for v in (low, high))  # type: ignore[arg-type]
    of = "" if not known else f" of {least}" if least == most else f" of numbers from {least} to {most}"
    inside = born.who or module
    place = f" in '{inside}'" if inside else ""
    return operation, f", made by '{operation}'{of}{place}{at_site(str(born.details.get('site', '')))}"


def _first_bad_module(trace: Trace, step: int) -> str:
    row = np.flatnonzero(trace.outputs["step"] == step)
    if not row.size:
        return ""
    here = row[0]
    called = trace.outputs["rows"][here] >= 0
    finite = np.isfinite(trace.outputs["mean"][here]) & np.isfinite(trace.outputs["max"][here])
    wrong = np.flatnonzero(called & ~finite)
    return trace.modules[wrong[0]].name if wrong.size else ""


def _nonfinite_shows(before: Floats, loss_finite: bool, born: Fact | None) -> str:
    half = "float16" in str(born.details.get("dtype", "")) if born is not None else False
    if half:
        return "The operation ran in float16, which ends at 65,504: larger values overflow to inf there, and inf - inf is NaN."
    if loss_finite:
        return (
            "A finite loss has a gradient that is not: sqrt or norm at zero, a division or log behind "
            "torch.where, an overflow."
        )
    if before.size >= 4 and before[-1] > 10 * np.median(before):
        return f"The loss had grown from {number(float(np.median(before)))} before: it overflowed."
    if before.size:
        return "Losses were ordinary until then: one operation made it (log of zero, 0/0, an overflow), or the batch held it."
    return "The first loss already is: the inputs, the initial weights or the loss function hold it."
