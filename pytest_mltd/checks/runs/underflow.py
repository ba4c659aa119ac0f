"""The question whether gradients vanish in float16, where no loss scale lifts them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, no_steps, too_short
from pytest_mltd.checks.runs.excerpts import curve_of
from pytest_mltd.checks.runs.places import counted, not_recorded, stepping
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace

_NORMAL = 2.0**-14  # the smallest normal number of float16, by definition


@check("run", explains=("losses.*", "updates.*", "gradients.vanishing"), rank=16, family="precision")
def check_underflow(run: Any, *, max_zero: float = 0.3, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether gradients vanish in float16 because no loss scale lifts them above its smallest number, 6e-8.

    Asked where layers compute in float16, by autocast or by their weights, and no GradScaler is in use. A weight whose gradient
    is exactly zero counts, as long as the loss is not zero and even the largest gradient lies below float16's normal range
    (2**-14): units that are dead leave larger ones elsewhere.

    Args:
        run: a recording, a run or a trace.
        max_zero: the highest share of weights' gradients that are exactly zero, over all steps (a guess; float32 has 0).
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_zero`` is no share.
    """
    trace = as_trace(run)
    if not 0 < max_zero < 1:
        raise ValueError(f"max_zero: a share between 0 and 1 is needed, not {max_zero!r}")
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if not _in_float16(trace):
        return no_occasion("no layer computes in float16")
    if (trace.losses["scale"] != 1).any():
        return no_occasion("a GradScaler is in use")
    if reason := too_short(trace, trace.busiest, 10):
        return not_asked(reason)
    columns = [i for i, p in enumerate(trace.parameters) if p.optimizers and len(p.shape) >= 2]
    kept, allowed = sift(allow, [trace.parameters[i].name for i in columns])
    columns = [i for i in columns if trace.parameters[i].name in set(kept)]
    grad = trace.parameter_norms["grad"].astype(np.float64)
    zero = np.array([_share_of_zeros(grad[:, i]) for i in columns])
    mean = float(zero.mean()) if zero.size else 0.0
    if mean > max_zero and _largest(trace, grad) < _NORMAL and not _learned(trace):
        return _underflowing(trace, columns, zero, max_zero, allowed)
    return Finding(
        ok=True,
        headline=f"{mean:.0%} of the weights' gradients are zero in float16, or others are large (max_zero={max_zero:g})",
        amount=mean,
        limit=("max_zero", max_zero),
        looked_at=f"{counted(len(columns), 'weight')} over {counted(trace.n_steps, 'step')}",
        allowed=allowed,
    )


assert_no_underflow = asserting(check_underflow)


def _in_float16(trace: Trace) -> bool:
    """Whether layers compute in float16: their weights are of it, or all outputs are numbers of it that bfloat16 has not."""
    if any(p.dtype == "float16" and p.optimizers for p in trace.parameters):
        return True
    layers = [i for i, m in enumerate(trace.modules) if m.kind.startswith(("Linear", "Conv"))]
    values = np.concatenate([trace.outputs[name][:, layers].ravel() for name in ("min", "max")])
    values = np.unique(values[np.isfinite(values)]).astype(np.float32)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float32) == values
    coarse = (values.view(np.uint32) & 0xFFFF) == 0  # bfloat16 keeps the upper half of the bits
    return bool(half.all() and (~coarse).sum() >= 5)


def _share_of_zeros(grad: Floats) -> float:
    taken = grad[grad >= 0]
    return float((taken == 0).mean()) if taken.size else 0.0


def _largest(trace: Trace, grad: Floats) -> float:
    """Return the median over the steps of the largest gradient of a parameter, as its root mean square."""
    if np.isnan(grad).any():
        return math.inf
    sizes = np.sqrt([max(math.prod(p.shape), 1) for p in trace.parameters])
    return float(np.median((np.fmax(grad, 0.0) / sizes).max(axis=1)))


def _learned(trace: Trace) -> bool:
    """Whether the losses came down to half, or to nothing."""
    found = [c for i in stepping(trace) if (c := curve_of(trace, i)) is not None and c.finite.size >= 5]
    return not found or any(c.signed or c.late < 0.5 * c.start for c in found)


def _underflowing(
    trace: Trace, columns: Sequence[int], zero: Floats, max_zero: float, allowed: tuple[tuple[str, str], ...]
) -> Finding:
    order = np.argsort(-zero, kind="stable")[:6]
    worst = trace.parameters[columns[order[0]]].name
    largest = _largest(trace, trace.parameter_norms["grad"].astype(np.float64))
    return Finding(
        ok=False,
        headline=f"gradients underflow in float16: {zero.mean():.0%} of the weights' gradients are exactly zero, that of "
        f"'{worst}' in {zero[order[0]]:.0%} of steps (max_zero={max_zero:g}), and no GradScaler is in use",
        culprit=worst,
        amount=float(zero.mean()),
        limit=("max_zero", max_zero),
        step=0,
        table=Table(
            ("weight", "share of zero gradients"),
            tuple((trace.parameters[columns[i]].name, float(zero[i])) for i in order),
            culprit=0,
        ),
        shows=f"Even the largest gradient is {number(largest, 2)} (root mean square), and float16 knows no number "
        "between 0 and 6e-8.",
        next_step="scale the loss: scaler = torch.amp.GradScaler(), scaler.scale(loss).backward(), scaler.step(optimizer), "
        "scaler.update(); or use bfloat16",
        allowed=allowed,
    )
