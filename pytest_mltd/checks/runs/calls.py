"""The question about the order of calls in a recorded run: what was done too early, too late, or in the wrong mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_mltd.checks.runs.call_order import (
    cleared_before_step,
    cleared_while_accumulating,
    clip_before_unscale,
    clip_misplaced,
    step_before_backward,
    step_while_scaled,
)
from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.modes import left_in_eval, validated_in_train_mode
from pytest_mltd.checks.runs.places import counted
from pytest_mltd.checks.runs.schedules import one_cycle_not_begun, scheduler_first, scheduler_per_batch
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, not_asked
from pytest_mltd.core.traces import CALLS, as_trace


@check(
    "run",
    explains=(
        "losses.*",
        "activations.*",
        "updates.*",
        "gradients.explosion",
        "gradients.nonfinite",
        "gradients.vanishing",
    ),
    rank=12,
)
def check_misordered_calls(
    run: Any, *, max_share: float = 0.2, max_idle: float = 0.4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether training's calls came in an order, or a mode, in which they do not do what they are for.

    Gradients cleared between backward and step, or between the backwards that a step was to add up; a step before the first
    backward, or on gradients that still hold the loss scale; clipping before backward, after the step or before the loss scale
    is taken out; a model left in eval mode after validation; validation losses computed in train mode; a
    scheduler stepped before the optimizer, for every batch until the learning rate is practically zero, or once an epoch where
    its cycle counts batches.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of steps (or calls) in the wrong order; a guess: one such step at the start is a habit, a
            fifth of all is not.
        max_idle: the highest share of steps, at the end, with a learning rate under 0.2% of its highest (a cosine
            that ends at zero has 0.02; a guess).
        allow: reasons by place (the call: ``eval``, ``clip``, ``zero_grad``, ``step``, ``scheduler``, ``validation``).

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is no share.
    """
    trace = as_trace(run)
    for name, value in (("max_share", max_share), ("max_idle", max_idle)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: a share between 0 and 1 is needed, not {value!r}")
    if reason := no_steps(trace) or too_short(trace, trace.busiest, 5):
        return not_asked(reason)
    if not trace.calls["kind"].size:
        return not_asked(f"the order of calls was not recorded (level {trace.level!r})")
    broken = [f for rule in _RULES if (f := rule(trace, max_share)) is not None]
    broken += [f for f in (scheduler_per_batch(trace, max_idle),) if f is not None]
    kept, allowed = sift(allow, [f.culprit for f in broken])
    found = next((f for f in broken if f.culprit in kept), None)
    if found is not None:
        return found
    seen = [kind for kind in CALLS if trace.of(kind).any()]
    return Finding(
        ok=True,
        headline=f"calls came in a working order (max_share={max_share:g})",
        limit=("max_share", max_share),
        looked_at=f"{counted(trace.calls['kind'].size, 'call')}: {', '.join(seen)}",
        allowed=allowed,
    )


_RULES = (
    step_before_backward,
    cleared_before_step,
    cleared_while_accumulating,
    step_while_scaled,
    left_in_eval,
    clip_before_unscale,
    clip_misplaced,
    scheduler_first,
    one_cycle_not_begun,
    validated_in_train_mode,
)

assert_no_misordered_calls = asserting(check_misordered_calls)
