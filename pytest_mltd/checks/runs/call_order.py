"""Rules on the order of backward, clearing, clipping, unscaling and step: what is done too early or too late to be of use."""

from __future__ import annotations

import numpy as np

from pytest_mltd.checks.runs.places import at_site, counted, middle, optimizer_label, stepping
from pytest_mltd.checks.runs.sequence import Places, at, between, last_before, misordered, next_after, site
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace


def cleared_before_step(trace: Trace, max_share: float) -> Finding | None:
    """Backward ran, zero_grad came after it, and the step found no gradient."""
    lost_calls = between(at(trace, "zero_grad"), at(trace, "backward"), at(trace, "step"))
    if not lost_calls.any():
        return None
    for optimizer in stepping(trace):
        mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
        gone = ~(trace.steps["grad_norm_used"][mine] > 0) & ~(trace.steps["nonfinite"][mine] > 0)
        lost = (trace.steps["backwards"][mine] > 0) & gone
        if lost.sum() < 3 or lost.mean() <= max_share:
            continue
        where = site(trace, at(trace, "zero_grad")[lost_calls])
        return misordered(
            "zero_grad",
            f"zero_grad runs between backward and step in {int(lost.sum()):,} of {counted(mine.size, 'step')}{at_site(where)}: "
            f"{optimizer_label(trace, optimizer)} steps without a gradient",
            float(lost.mean()),
            max_share,
            int(mine[np.flatnonzero(lost)[0]]),
            Table(
                ("step", "loss", "backwards before it", "gradient norm used"),
                tuple(
                    (
                        int(i),
                        float(trace.steps["loss"][i]),
                        int(trace.steps["backwards"][i]),
                        float(np.nan_to_num(trace.steps["grad_norm_used"][i])),
                    )
                    for i in mine[:4]
                ),
                0,
            ),
            "What backward computed was thrown away before the optimizer could use it.",
            "call zero_grad before backward, or after the step",
        )
    return None


def step_before_backward(trace: Trace, max_share: float) -> Finding | None:
    """The last call before each step is a forward: its backward comes only after the step."""
    steps, forward, backward = (at(trace, k) for k in ("step", "forward", "backward"))
    if not steps.size or not forward.size or not backward.size:
        return None
    first = int(stepping(trace)[0])
    begin = np.flatnonzero(trace.steps["optimizer"] == first)[0]
    if trace.steps["backwards"][begin] or trace.steps["grad_norm_used"][begin] > 0:
        return None
    late = last_before(steps, forward) > last_before(steps, backward)
    share = float(late.mean())
    if share <= max(max_share, 0.8):
        return None
    where = site(trace, steps)
    return misordered(
        "step",
        f"the optimizer steps before backward, in {int(late.sum()):,} of {counted(steps.size, 'step')}{at_site(where)}: "
        "each batch's gradients come too late for its own step",
        share,
        max_share,
        int(begin),
        None,
        "Forward is followed by the step, and backward only comes after it; the first step had no gradient at all.",
        "put loss.backward() before optimizer.step()",
    )


def clip_misplaced(trace: Trace, max_share: float) -> Finding | None:
    """Clipping that no step follows before the next backward."""
    clip, steps, backward = (at(trace, k) for k in ("clip", "step", "backward"))
    skipped = at(trace, "skipped_step")
    steps = np.sort(np.concatenate([steps, skipped]))
    limits = trace.calls["value"][clip]
    clip = clip[(limits < 1e6) | np.isnan(limits)]  # an enormous limit only measures the norm
    if clip.size < 3 or not steps.size or not backward.size:
        return None
    next_step, next_backward = next_after(clip, steps), next_after(clip, backward)
    fresh = last_before(clip, backward) > last_before(clip, steps)
    wrong = ~fresh & (next_backward <= next_step)
    share = float(wrong.mean())
    if share <= max_share:
        return None
    where = site(trace, clip[wrong])
    order = (
        "after the step"
        if (last_before(clip[wrong], steps) >= 0).mean() > 0.5 and not _cleared_first(trace, clip[wrong])
        else "before backward"
    )
    return misordered(
        "clip",
        f"gradients are clipped {order}, in {int(wrong.sum()):,} of "
        f"{counted(clip.size, 'call')}{at_site(where)}: no step ever uses "
        "the clipped ones",
        share,
        max_share,
        int(trace.calls["step"][clip[wrong][0]]),
        None,
        "Between that call and the next step there is another backward: the limit never holds.",
        "clip between loss.backward() and optimizer.step()",
    )


def _cleared_first(trace: Trace, clip: Places) -> bool:
    """Whether zero_grad came between the last step and the clipping: then it belongs to the coming backward."""
    zero = at(trace, "zero_grad")
    return bool((last_before(clip, zero) > last_before(clip, at(trace, "step"))).mean() > 0.5)


def clip_before_unscale(trace: Trace, max_share: float) -> Finding | None:
    """Clipping that comes before the loss scale is taken out of the gradients."""
    clip, unscale = at(trace, "clip"), at(trace, "unscale")
    if clip.size < 3 or not unscale.size or not (trace.steps["scale"] > 1).any():
        return None
    backward, steps = at(trace, "backward"), np.sort(np.concatenate([at(trace, "step"), at(trace, "skipped_step")]))
    scaled = (last_before(clip, unscale) < last_before(clip, backward)) & (
        next_after(clip, unscale) < next_after(clip, steps)
    )
    share = float(scaled.mean())
    if share <= max_share:
        return None
    limit, scale = middle(trace.calls["value"][clip]), float(np.median(trace.steps["scale"]))
    return misordered(
        "clip",
        f"gradients are clipped before unscale, in {int(scaled.sum()):,} of {counted(clip.size, 'call')}"
        f"{at_site(site(trace, clip[scaled]))}: the limit {number(limit)} is held against gradients "
        f"{number(scale)} times too large",
        share,
        max_share,
        int(trace.calls["step"][clip[scaled][0]]),
        None,
        f"After the scale is taken out, a norm of at most {number(limit / scale)} is left of each step.",
        "call scaler.unscale_(optimizer) before clipping",
    )
