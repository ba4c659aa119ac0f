"""Rules on the order of backward, clearing, clipping, unscaling and step: what is done too early or too late to be of use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.places import at_site, counted, middle, optimizer_label, stepping
from pytest_mltd.checks.runs.sequence import Places, at, between, last_before, misordered, next_after, site
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import NO_DIGEST, Trace


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


def step_while_scaled(trace: Trace, max_share: float) -> Finding | None:
    """A step on gradients that still hold the loss scale: `optimizer.step()` where `scaler.step(optimizer)` was meant."""
    for optimizer in stepping(trace):
        info = trace.optimizers[optimizer] if optimizer < len(trace.optimizers) else None
        if info is None or info.settings.get("fused"):
            continue  # a fused optimizer takes the scale out itself
        steps, unscale, skipped = (_of(trace, kind, info.name) for kind in ("step", "unscale", "skipped_step"))
        row = trace.calls["step"][steps]
        known = row < trace.n_steps
        steps, row = steps[known], row[known]
        if steps.size < 3:
            continue
        ends = np.sort(np.concatenate([steps, skipped]))
        kept = last_before(steps, unscale) <= last_before(steps, ends)
        shrunk = trace.steps["grad_norm_used"][row] < 0.1 * trace.steps["grad_norm"][row]  # divided by hand
        scaled = kept & (trace.steps["scale"][row] > 1) & ~shrunk
        share = float(scaled.mean())
        if share <= max_share:
            continue
        scale = float(np.median(trace.steps["scale"][row][scaled]))
        return misordered(
            "step",
            f"{optimizer_label(trace, optimizer)} steps on gradients that still hold the loss scale, in "
            f"{int(scaled.sum()):,} of {counted(steps.size, 'step')}{at_site(site(trace, steps[scaled]))}: they are "
            f"{number(scale)} times too large",
            share,
            max_share,
            int(row[scaled][0]),
            None,
            "The loss went through scaler.scale(), and between its backward and that step nothing took the scale out.",
            "call scaler.step(optimizer) and scaler.update() instead of optimizer.step()",
        )
    return None


def cleared_while_accumulating(trace: Trace, max_share: float) -> Finding | None:
    """Gradients cleared between the backwards that one step was to add up: only the last of them counts.

    Each backward is of the same line, on another batch, and the one that the step uses is of that line too: two passes over one
    batch (a sharpness-aware step), gradients for the inputs (an adversary) and those that the program adds up by hand (one
    sample at a time) are cleared on purpose.
    """
    backward, zero = at(trace, "backward"), at(trace, "zero_grad")
    ends = np.sort(np.concatenate([at(trace, "step"), at(trace, "skipped_step")]))
    if backward.size < 6 or not zero.size or ends.size < 3:
        return None
    line, batch = trace.calls["site"][backward], _batches(trace, backward)
    followed = next_after(backward[:-1], ends) > backward[1:]  # another backward comes before the step
    cleared = next_after(backward[:-1], zero) < backward[1:]
    other = (batch[:-1] != batch[1:]) & (batch[:-1] != NO_DIGEST) & (batch[1:] != NO_DIGEST)
    used = last_before(next_after(backward[:-1], ends), backward)
    to_the_end = line[np.minimum(np.searchsorted(backward, used), backward.size - 1)] == line[:-1]
    thrown = followed & cleared & other & (line[:-1] == line[1:]) & to_the_end
    steps = np.unique(next_after(backward[:-1][thrown], ends))
    share = steps.size / ends.size
    lost = trace.losses["step"].size - int(trace.steps["backwards"].sum())
    if share <= max(max_share, 0.5) or lost < 0.8 * thrown.sum() or _written_by_hand(trace):
        return None
    each = round(float(thrown.sum()) / steps.size) + 1
    between_them = next_after(backward[:-1][thrown], zero)
    return misordered(
        "zero_grad",
        f"zero_grad runs between the {each} backwards of a step, before {steps.size:,} of {counted(ends.size, 'step')}"
        f"{at_site(site(trace, between_them))}: only the last of them counts, nothing is accumulated",
        share,
        max_share,
        int(trace.calls["step"][backward[:-1][thrown][0]]),
        None,
        f"{int(thrown.sum()):,} of {counted(backward.size, 'backward')} computed gradients that no step used.",
        "call zero_grad once after each step, not before each backward",
    )


def _written_by_hand(trace: Trace) -> bool:
    """Whether most steps used other gradients than backward left, and it was not clipping: sums that were put there."""
    left, used = trace.steps["grad_norm"], trace.steps["grad_norm_used"]
    other = ~np.isclose(left, used, rtol=1e-3)
    return bool(other.mean() > 0.5 and not at(trace, "clip").size)


def _batches(trace: Trace, places: Places) -> NDArray[np.uint64]:
    """Return the digest of the last batch before each place, `NO_DIGEST` where none is known."""
    batch = at(trace, "batch")
    last = last_before(places, batch)
    return np.where(last >= 0, trace.calls["digest"][np.maximum(last, 0)], NO_DIGEST).astype(np.uint64)


def _of(trace: Trace, kind: str, who: str) -> Places:
    """Return the places of the calls of a kind that concern one optimizer."""
    named = [i for i, n in enumerate(trace.names) if n == who]
    return np.flatnonzero(trace.of(kind) & np.isin(trace.calls["who"], named)).astype(np.int64)
