"""Questions about the gradients of a recorded run: not finite, exploding, vanishing, left over from the step before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_mltd.checks.runs.curves import no_steps, no_training, too_short
from pytest_mltd.checks.runs.excerpts import backward_site, curve_at, steps_table
from pytest_mltd.checks.runs.explosion import explodes_at_once, explosion_finding, measure_explosion
from pytest_mltd.checks.runs.nonfinite import always_skipped, first_nonfinite, nonfinite_finding
from pytest_mltd.checks.runs.places import (
    at_site,
    counted,
    held_by,
    listed,
    not_recorded,
    optimizer_label,
    site_of,
    stepping,
)
from pytest_mltd.checks.runs.vanishing import find_vanishing
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace, as_trace


@check("run", explains=("*",), rank=30)
def check_nonfinite(run: Any, *, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether a loss or a gradient that an optimizer used was NaN or infinite.

    What a guard kept from the weights does not count: a step that a GradScaler skipped, a batch left out before the step, an
    optimizer that declines (later steps and weights are finite then).

    Args:
        run: a recording, a run or a trace.
        allow: reasons by place (a loss stream, parameter or module).

    Raises:
        TypeError: ``run`` is no recorded run.
    """
    trace = as_trace(run)
    if reason := no_training(trace):
        return not_asked(reason)
    if (skipped := always_skipped(trace)) is not None:
        return skipped
    step = first_nonfinite(trace)
    if step is None:
        counts = f"{counted(trace.n_steps, 'step')}, {counted(trace.losses['step'].size, 'loss', 'losses')}"
        return Finding(ok=True, headline=f"all losses and gradients are finite ({counts})", looked_at=counts)
    return nonfinite_finding(trace, step)


@check(
    "run",
    explains=("losses.*", "activations.*", "gradients.nonfinite", "gradients.vanishing", "updates.update_scale"),
    rank=25,
)
def check_explosion(
    run: Any, *, max_growth: float = 50.0, warmup: int = 5, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether a gradient, as the step used it, left its own level far behind and did harm.

    The norm over all parameters is held against the lower of its early level and the median of the 25 steps before, so that a
    regression that starts with huge gradients is measured by what it came down to. Harm means that the losses after the
    jump are no longer finite, or three times what they were. Gradients that clipping cut down count as cut. Where steps follow
    the gradient (plain SGD), a first gradient far larger than the weights themselves is an explosion as well, if it harms.

    Args:
        run: a recording, a run or a trace.
        max_growth: the highest ratio of the norm to its own level (AutoTrainer, ICSE 2021, takes 70 between layers; healthy
            programs of tests/faulty stay under 30 where the loss is harmed too).
        warmup: steps whose median is the early level, and the fewest that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    _positive(max_growth=max_growth, warmup=warmup)
    if reason := no_steps(trace) or too_short(trace, trace.busiest, warmup + 1):
        return not_asked(reason)
    if not np.isfinite(trace.steps["grad_norm_used"]).any():
        if trace.level == "scalars" and np.isfinite(trace.steps["grad_norm"]).any():
            return not_asked(
                "a log's gradient norm is mostly the one before clipping, and what the steps used is not known"
            )
        return not_asked(not_recorded(trace, "gradient norms", "parameter_norms") or "no gradient norm is known")
    worst, failed = 1.0, []
    for optimizer in stepping(trace):
        if (finding := explodes_at_once(trace, optimizer, max_growth)) is not None:
            return finding
        growth, onset, passed = measure_explosion(trace, optimizer, max_growth, warmup)
        worst = max(worst, growth)
        if onset is not None:
            failed.append((onset, passed, growth, optimizer))
    looked = f"{counted(trace.n_steps, 'step')} of {listed([optimizer_label(trace, i) for i in stepping(trace)])}"
    if not failed:
        return Finding(
            ok=True,
            headline=f"gradient norms stay within {number(worst)} times their own level where the loss suffers "
            f"(max_growth={max_growth:g})",
            amount=worst,
            limit=("max_growth", max_growth),
            looked_at=looked,
        )
    onset, passed, growth, optimizer = min(failed)
    return explosion_finding(trace, onset, passed, growth, optimizer, max_growth)


@check("run", explains=("losses.plateau",), rank=35)
def check_vanishing(
    run: Any, *, min_ratio: float = 1e-4, min_steps: int = 20, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether the gradient dies on its way to the first layers while the loss is still high.

    A layer is held against the net's other layers (weights of two or more axes; biases before a normalisation have no gradient
    by construction) and the net against its own early steps. A loss that has come down to a fifth of its start is
    allowed small gradients.

    Args:
        run: a recording, a run or a trace.
        min_ratio: the lowest ratio of the first layer's gradient, relative to its weights, to the largest of the others
            (AutoTrainer, ICSE 2021, takes 1e-3 together with an absolute floor; a tenth of it here instead of the floor).
        min_steps: the fewest steps that are needed; a guess.
        allow: reasons by parameter.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: a limit is not positive.
    """
    trace = as_trace(run)
    _positive(min_ratio=min_ratio, min_steps=min_steps)
    if reason := no_steps(trace) or not_recorded(trace, "gradients by parameter", "parameter_norms"):
        return not_asked(reason)
    if reason := too_short(trace, trace.busiest, min_steps):
        return not_asked(reason)
    looked: list[str] = []
    lowest = math.inf
    allowed: tuple[tuple[str, str], ...] = ()
    for optimizer in stepping(trace):
        columns = [i for i in held_by(trace, optimizer) if len(trace.parameters[i].shape) >= 2]
        kept, allowed = sift(allow, [trace.parameters[i].name for i in columns])
        columns = [i for i in columns if trace.parameters[i].name in set(kept)]
        finding, ratio = find_vanishing(trace, optimizer, np.array(columns, np.int64), min_ratio, min_steps)
        if finding is not None:
            return finding
        lowest = min(lowest, ratio)
        looked.append(f"{counted(len(columns), 'weight')} of {optimizer_label(trace, optimizer)}")
    measured = "" if math.isinf(lowest) else f": the first layer's is at least {number(lowest)} of the largest"
    return Finding(
        ok=True,
        headline=f"gradients reach the first layers{measured} (min_ratio={min_ratio:g})",
        amount=None if math.isinf(lowest) else lowest,
        limit=("min_ratio", min_ratio),
        looked_at=", ".join(looked),
        allowed=allowed,
    )


@check(
    "run",
    explains=(
        "losses.*",
        "activations.*",
        "gradients.explosion",
        "gradients.nonfinite",
        "gradients.vanishing",
        "updates.update_scale",
    ),
    rank=10,
)
def check_stale_gradients(run: Any, *, max_share: float = 0.05, allow: Mapping[str, str] | None = None) -> Finding:
    """Ask whether an optimizer stepped on gradients that were left over from before its last step and grew.

    That is a missing, misplaced or wrongly addressed `zero_grad`. Accumulation is not: its gradients grow between two steps,
    and are cleared after each.

    Args:
        run: a recording, a run or a trace.
        max_share: the highest share of an optimizer's steps on such gradients (a missing call makes it all but 1.0; healthy
            programs measured in tests/faulty have 0, so a guess between).
        allow: reasons by optimizer.

    Raises:
        TypeError: ``run`` is no recorded run.
        ValueError: ``max_share`` is no share.
    """
    trace = as_trace(run)
    if not 0 <= max_share < 1:
        raise ValueError(f"max_share: a share from 0 up to 1 is needed, not {max_share!r}")
    if reason := no_steps(trace) or too_short(trace, trace.busiest, 4):
        return not_asked(reason)
    if trace.level == "scalars":
        return not_asked("gradients were not recorded (level 'scalars')")
    worst, culprit = 0.0, -1
    for optimizer in stepping(trace):
        stale = trace.steps["stale"][trace.steps["optimizer"] == optimizer]
        share = float((stale > 0).mean())
        if share > worst and (stale > 0).sum() >= 3:
            worst, culprit = share, optimizer
    looked = f"{counted(trace.n_steps, 'step')} of {listed([optimizer_label(trace, i) for i in stepping(trace)])}"
    if worst <= max_share:
        return Finding(
            ok=True,
            headline=f"gradients are cleared between steps: {worst:.1%} of steps used old ones (max_share={max_share:g})",
            amount=worst,
            limit=("max_share", max_share),
            looked_at=looked,
        )
    return _stale_finding(trace, culprit, worst, max_share)


assert_no_nonfinite = asserting(check_nonfinite)
assert_no_explosion = asserting(check_explosion)
assert_no_vanishing = asserting(check_vanishing)
assert_no_stale_gradients = asserting(check_stale_gradients)


# -- stale


def _stale_finding(trace: Trace, optimizer: int, share: float, max_share: float) -> Finding:
    mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
    stale = trace.steps["stale"][mine]
    label = optimizer_label(trace, optimizer)
    count = int((stale > 0).sum())
    cleared = int(trace.of("zero_grad").sum())
    facts = [f for f in trace.facts if f.kind == "stale"]
    held = len(held_by(trace, optimizer))
    part = int(np.median(stale[stale > 0]))
    culprit = facts[0].who if facts and held and part < held else label
    call = (
        "zero_grad is never called"
        if not cleared
        else f"zero_grad ran {counted(cleared, 'time')}{at_site(site_of(trace, 'zero_grad'))}"
    )
    some = f" ({part} of its {held} parameters: {listed([f.who for f in facts])})" if facts and part < held else ""
    backward = backward_site(trace, int(mine[np.flatnonzero(stale > 0)[0]]))
    first = int(mine[np.flatnonzero(stale > 0)[0]])
    return Finding(
        ok=False,
        headline=f"{label} steps on stale gradients, left over from the step before, in {count:,} of "
        f"{counted(mine.size, 'step')}"
        f"{some} (max_share={max_share:g}): {call}",
        culprit=culprit,
        amount=share,
        limit=("max_share", max_share),
        step=first,
        table=steps_table(trace, first, curve_at(trace, first), ahead=4),
        shows="Each step adds this batch's gradients to those of all batches before; nothing cleared them in between.",
        next_step=f"call optimizer.zero_grad() once before each backward{at_site(backward)}; to accumulate on "
        "purpose, clear after each step",
    )


# -- shared


def _positive(**limits: float) -> None:
    for name, value in limits.items():
        if not value > 0:
            raise ValueError(f"{name}: a number above zero is needed, not {value!r}")
