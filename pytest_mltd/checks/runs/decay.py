"""The question whether weight decay, and not the loss, decides what the weights become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import Floats, Steps, no_steps, too_short
from pytest_mltd.checks.runs.excerpts import curve_of
from pytest_mltd.checks.runs.places import (
    counted,
    gradients_at,
    held_by,
    made_at,
    middle,
    not_recorded,
    optimizer_label,
    stepping,
    update_rows,
)
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, no_occasion, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace

_EARLY = 5  # sampled steps: later the weights have come to where decay and gradient are in balance, in every run
_SHRUNK = 0.9  # of their first norm: above it the decay has not got far; a guess
_UNLEARNED = 0.4  # of its start: where the loss came down further, a strong decay is a choice; a guess


@check(
    "run",
    explains=("losses.*", "activations.*", "updates.update_scale", "gradients.vanishing"),
    rank=18,
    family="updates",
)
def check_weight_decay(
    run: Any, *, max_share: float = 0.5, min_steps: int = 10, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether weight decay is the larger part of what the first steps do, shrinks the weights, and nothing is learned.

    Asked of weights of two axes or more. Decay that is decoupled (AdamW) is held against the whole update; decay that is added
    to the gradient against that sum. A strong decay under which the loss comes down is a choice, and fine.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of decay in the first five sampled steps (healthy programs in tests/faulty have up to
            0.03; a guess between that and the 0.78 of a decay of 10).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is out of range.
    """
    trace = as_trace(run)
    if not 0 < max_share < 1:
        raise ValueError(f"max_share: a share between 0 and 1 is needed, not {max_share!r}")
    if not min_steps > 0:
        raise ValueError(f"min_steps: a number above zero is needed, not {min_steps!r}")
    if reason := no_steps(trace) or not_recorded(trace, "updates", "updates"):
        return not_asked(reason)
    if not any(_decay_of(trace, i) > 0 for i in stepping(trace)):
        return no_occasion("no optimizer has a weight decay")
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    measured = [m for i in stepping(trace) if (m := _measure(trace, i)) is not None]
    if not measured:
        return not_asked(
            "no weight of two axes or more was seen to train under weight decay, or its gradients were not recorded"
        )
    kept, allowed = sift(allow, [m.label for m in measured])
    broken = [m for m in measured if m.label in kept and m.share > max_share and m.shrunk < _SHRUNK]
    for decay in sorted(broken, key=lambda m: -m.share):
        if _unlearned(trace, decay):
            return _decides(trace, decay, max_share, allowed)
    largest = max(m.share for m in measured)
    return Finding(
        ok=True,
        headline=f"weight decay is {number(largest, 2)} of what early steps do, or the loss came down "
        f"(max_share={max_share:g})",
        amount=largest,
        limit=("max_share", max_share),
        looked_at=", ".join(f"{counted(m.at.size, 'sampled step')} of {m.label}" for m in measured),
        allowed=allowed,
    )


assert_no_weight_decay = asserting(check_weight_decay)


@dataclass(frozen=True, slots=True)
class _Decay:
    """The weights of one optimizer under decay, at its sampled steps."""

    optimizer: int
    label: str
    at: Steps
    weight: Floats
    update: Floats
    part: Floats  # share of decay
    share: float  # its median over the first
    shrunk: float  # lowest norm over the first


def _decay_of(trace: Trace, optimizer: int) -> float:
    known = 0 <= optimizer < len(trace.optimizers)
    value = trace.optimizers[optimizer].settings.get("weight_decay") if known else None
    return float(value) if isinstance(value, int | float) else 0.0


def _measure(trace: Trace, optimizer: int) -> _Decay | None:
    decay, rows = _decay_of(trace, optimizer), update_rows(trace, optimizer)
    columns = [i for i in held_by(trace, optimizer) if len(trace.parameters[i].shape) >= 2]
    if not decay > 0 or not columns or not rows.size:
        return None
    weight, update = (_norms(trace.updates[name][np.ix_(rows, columns)]) for name in ("weight", "update"))
    info, steps = trace.optimizers[optimizer], trace.updates["step"][rows]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if info.name.startswith("AdamW") or info.settings.get("decoupled_weight_decay"):
            part = np.minimum(trace.steps["lr"][steps] * decay * weight / update, 1.0)
        else:
            used = gradients_at(trace, steps)[:, columns]
            gradient = np.where(np.isnan(used).all(axis=1), np.nan, _norms(used))
            part = decay * weight / (decay * weight + gradient)
    part = np.where(update > 0, part, np.nan)
    share = middle(part[:_EARLY])
    if not np.isfinite(share) or not 0 < weight[0] < np.inf:
        return None
    label = optimizer_label(trace, optimizer)
    shrunk = float(np.nanmin(weight) / weight[0])
    return _Decay(optimizer, label, steps, weight, update, part, share, shrunk)


def _norms(values: Any) -> Floats:
    """Return the norm over all columns; what was not taken counts nothing."""
    return np.asarray(np.sqrt((np.fmax(values.astype(np.float64), 0.0) ** 2).sum(axis=1)))


def _unlearned(trace: Trace, decay: _Decay) -> bool:
    curve = curve_of(trace, decay.optimizer)
    if curve is None or curve.finite.size < 5 or curve.signed:
        return False
    return curve.late > _UNLEARNED * curve.start


def _decides(trace: Trace, decay: _Decay, max_share: float, allowed: tuple[tuple[str, str], ...]) -> Finding:
    shown = np.unique(np.append(np.arange(min(3, decay.at.size)), [decay.at.size // 2, decay.at.size - 1]))
    lowest = int(np.nanargmin(decay.weight))
    losses = trace.steps["loss"]
    value = _decay_of(trace, decay.optimizer)
    return Finding(
        ok=False,
        headline=f"weight decay decides, not the loss: it is {number(decay.share, 2)} of what the first steps of {decay.label} "
        f"do (max_share={max_share:g}; weight_decay={number(value)}{made_at(trace, decay.optimizer)})",
        culprit=decay.label,
        amount=decay.share,
        limit=("max_share", max_share),
        step=int(decay.at[0]),
        table=Table(
            ("step", "norm of weights", "update", "share of decay", "loss"),
            tuple(
                (
                    int(decay.at[i]),
                    float(decay.weight[i]),
                    float(decay.update[i]),
                    float(decay.part[i]),
                    float(losses[decay.at[i]]),
                )
                for i in shown
            ),
            culprit=0,
        ),
        shows=f"The weights shrink to {number(decay.shrunk, 2)} of their first norm by step {int(decay.at[lowest]):,}, and the "
        f"loss stays: it begins at {number(float(losses[decay.at[0]]))} and ends at {number(float(losses[decay.at[-1]]))}.",
        next_step="lower weight_decay: 0.01 to 0.1 is usual for AdamW, 0.0001 to 0.001 for SGD",
        allowed=allowed,
    )
