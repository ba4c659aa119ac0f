"""The question about the order of calls in a recorded run: what was done too early, too late, or in the wrong mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.curves import no_steps, too_short
from pytest_mltd.checks.runs.places import (
    at_site,
    common_site,
    counted,
    held_by,
    middle,
    name_at,
    optimizer_label,
    root_of,
    stepping,
)
from pytest_mltd.core.asking import asserting, check, sift
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import CALLS, Trace, as_trace

Places = NDArray[np.int64]

_MODAL = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "BatchNorm", "SyncBatchNorm", "LazyBatchNorm")
_IDLE = 2e-3  # of the highest learning rate, so that three decays by ten are below; a step then moves next to nothing


@check(
    "run",
    explains=("losses.*", "updates.*", "gradients.explosion", "gradients.nonfinite", "gradients.vanishing"),
    rank=12,
)
def check_misordered_calls(
    run: Any, *, max_share: float = 0.2, max_idle: float = 0.4, allow: Mapping[str, str] | None = None
) -> Finding:
    """Ask whether training's calls came in an order, or a mode, in which they do not do what they are for.

    Gradients cleared between backward and step; a step before the first backward; clipping before backward, after the step or
    before the loss scale is taken out; a model left in eval mode after validation; validation losses computed in train mode; a
    scheduler stepped before the optimizer, or for every batch until the learning rate is practically zero.

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
    broken += [f for f in (_scheduler_per_batch(trace, max_idle),) if f is not None]
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


assert_no_misordered_calls = asserting(check_misordered_calls)


def _cleared_before_step(trace: Trace, max_share: float) -> Finding | None:
    """Backward ran, zero_grad came after it, and the step found no gradient."""
    between = _between(_at(trace, "zero_grad"), _at(trace, "backward"), _at(trace, "step"))
    if not between.any():
        return None
    for optimizer in stepping(trace):
        mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
        gone = ~(trace.steps["grad_norm_used"][mine] > 0) & ~(trace.steps["nonfinite"][mine] > 0)
        lost = (trace.steps["backwards"][mine] > 0) & gone
        if lost.sum() < 3 or lost.mean() <= max_share:
            continue
        site = _site(trace, _at(trace, "zero_grad")[between])
        return _finding(
            "zero_grad",
            f"zero_grad runs between backward and step in {int(lost.sum()):,} of {counted(mine.size, 'step')}{at_site(site)}: "
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


def _step_before_backward(trace: Trace, max_share: float) -> Finding | None:
    """The last call before each step is a forward: its backward comes only after the step."""
    steps, forward, backward = (_at(trace, k) for k in ("step", "forward", "backward"))
    if not steps.size or not forward.size or not backward.size:
        return None
    first = int(stepping(trace)[0])
    begin = np.flatnonzero(trace.steps["optimizer"] == first)[0]
    if trace.steps["backwards"][begin] or trace.steps["grad_norm_used"][begin] > 0:
        return None
    late = _last_before(steps, forward) > _last_before(steps, backward)
    share = float(late.mean())
    if share <= max(max_share, 0.8):
        return None
    site = _site(trace, steps)
    return _finding(
        "step",
        f"the optimizer steps before backward, in {int(late.sum()):,} of {counted(steps.size, 'step')}{at_site(site)}: "
        "each batch's gradients come too late for its own step",
        share,
        max_share,
        int(begin),
        None,
        "Forward is followed by the step, and backward only comes after it; the first step had no gradient at all.",
        "put loss.backward() before optimizer.step()",
    )


def _clip_misplaced(trace: Trace, max_share: float) -> Finding | None:
    """Clipping that no step follows before the next backward."""
    clip, steps, backward = (_at(trace, k) for k in ("clip", "step", "backward"))
    skipped = _at(trace, "skipped_step")
    steps = np.sort(np.concatenate([steps, skipped]))
    limits = trace.calls["value"][clip]
    clip = clip[(limits < 1e6) | np.isnan(limits)]  # an enormous limit only measures the norm
    if clip.size < 3 or not steps.size or not backward.size:
        return None
    next_step, next_backward = _next_after(clip, steps), _next_after(clip, backward)
    fresh = _last_before(clip, backward) > _last_before(clip, steps)
    wrong = ~fresh & (next_backward <= next_step)
    share = float(wrong.mean())
    if share <= max_share:
        return None
    site = _site(trace, clip[wrong])
    order = (
        "after the step"
        if (_last_before(clip[wrong], steps) >= 0).mean() > 0.5 and not _cleared_first(trace, clip[wrong])
        else "before backward"
    )
    return _finding(
        "clip",
        f"gradients are clipped {order}, in {int(wrong.sum()):,} of "
        f"{counted(clip.size, 'call')}{at_site(site)}: no step ever uses "
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
    zero = _at(trace, "zero_grad")
    return bool((_last_before(clip, zero) > _last_before(clip, _at(trace, "step"))).mean() > 0.5)


def _clip_before_unscale(trace: Trace, max_share: float) -> Finding | None:
    """Clipping that comes before the loss scale is taken out of the gradients."""
    clip, unscale = _at(trace, "clip"), _at(trace, "unscale")
    if clip.size < 3 or not unscale.size or not (trace.steps["scale"] > 1).any():
        return None
    backward, steps = _at(trace, "backward"), np.sort(np.concatenate([_at(trace, "step"), _at(trace, "skipped_step")]))
    scaled = (_last_before(clip, unscale) < _last_before(clip, backward)) & (
        _next_after(clip, unscale) < _next_after(clip, steps)
    )
    share = float(scaled.mean())
    if share <= max_share:
        return None
    limit, scale = middle(trace.calls["value"][clip]), float(np.median(trace.steps["scale"]))
    return _finding(
        "clip",
        f"gradients are clipped before unscale, in {int(scaled.sum()):,} of {counted(clip.size, 'call')}"
        f"{at_site(_site(trace, clip[scaled]))}: the limit {number(limit)} is held against gradients "
        f"{number(scale)} times too large",
        share,
        max_share,
        int(trace.calls["step"][clip[scaled][0]]),
        None,
        f"After the scale is taken out, a norm of at most {number(limit / scale)} is left of each step.",
        "call scaler.unscale_(optimizer) before clipping",
    )


def _left_in_eval(trace: Trace, max_share: float) -> Finding | None:
    """Training that went on in eval mode after it had been in train mode."""
    kinds = sorted({m.kind for m in trace.modules if m.kind.startswith(_MODAL)})
    if not kinds:
        return None
    for optimizer in stepping(trace):
        mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
        mode = _modes(trace, optimizer)[mine]
        off = np.flatnonzero(mode == 0)
        if off.size < 3:
            continue
        began = bool((mode[: off[0]] == 1).any()) or _validated_first(trace, int(mine[off[0]]))
        share = float((mode[off[0] :] == 0).mean())
        if not began or share <= max_share:
            continue
        step = int(mine[off[0]])
        site = _last_site(trace, "eval", step)
        back = (
            "train() is never called again"
            if not trace.of("train")[trace.calls["step"] >= step].any()
            else "train() comes too late"
        )
        return _finding(
            "eval",
            f"the model is left in eval mode while training, from step {step} on: {off.size:,} of {counted(mine.size, 'step')}"
            f"{at_site(site)}",
            share,
            max_share,
            step,
            _mode_table(trace, mine, mode, int(off[0])),
            f"{_kinds(kinds)} works otherwise there (no dropout, old batch statistics), and after eval() {back}.",
            "call model.train() after each validation, before the next training batch",
        )
    return None


def _validated_first(trace: Trace, step: int) -> bool:
    """Whether the model was put to eval mode for a validation just before this step, and that before any training."""
    return bool(step == 0 and (trace.val["step"] == 0).any() and trace.of("eval")[trace.calls["step"] == 0].any())


def _modes(trace: Trace, optimizer: int) -> NDArray[np.int64]:
    """Return at each step the mode (1 train, 0 eval, -1 not seen) of the modules that an optimizer trains.

    It is that of their last forward under gradients: a teacher in eval mode, or a validation, comes between.
    """
    forward = np.flatnonzero(trace.of("forward") & (trace.calls["grad"] == 1)).astype(np.int64)
    roots = {root_of(trace, trace.parameters[i].name) for i in held_by(trace, optimizer)}
    named = np.array([n in roots for n in trace.names] or [False])
    who = trace.calls["who"][forward]
    forward = forward[(who >= 0) & named[np.minimum(np.maximum(who, 0), named.size - 1)]]
    if not forward.size:
        return np.asarray(trace.steps["training"], dtype=np.int64)
    at = trace.calls["step"][forward]
    last = np.searchsorted(at, np.arange(trace.n_steps), side="right") - 1
    return np.where(last >= 0, trace.calls["value"][forward][np.maximum(last, 0)], -1).astype(np.int64)


def _mode_table(trace: Trace, mine: Places, mode: NDArray[np.int64], at: int) -> Table:
    shown = range(max(0, at - 2), min(mine.size, at + 3))
    words = {1: "train", 0: "eval", -1: "not seen"}
    rows = tuple((int(mine[i]), words[int(mode[i])], float(trace.steps["loss"][mine[i]])) for i in shown)
    return Table(("step", "mode", "loss"), rows, culprit=at - shown[0])


def _validated_in_train_mode(trace: Trace, max_share: float) -> Finding | None:
    """Validation losses computed without gradients while dropout or batch norm were in train mode.

    Each needs a forward of its own, without gradients and in train mode: metrics of the training batch's own output, and a net
    that was put into eval mode at all, are in order. What happens in most steps is no validation (a teacher, a roll-out).
    """
    kinds = sorted({m.kind for m in trace.modules if m.kind.startswith(_MODAL)})
    at = np.unique(trace.val["step"])
    untracked = trace.of("forward") & (trace.calls["grad"] == 0)
    modes = trace.calls["value"][untracked]
    if not kinds or at.size < 2 or at.size > 0.34 * trace.n_steps or (modes == 0).any():
        return None
    noisy = at[np.isin(at, trace.calls["step"][untracked][modes == 1])]
    share = noisy.size / at.size
    if noisy.size < 2 or share <= max(max_share, 0.5):
        return None
    stream = int(trace.val["stream"][-1])
    where = trace.streams[stream] if 0 <= stream < len(trace.streams) else ""
    shown = np.isin(trace.val["step"], noisy)
    return _finding(
        "validation",
        f"validation runs in train mode, each of {counted(noisy.size, 'time')}{at_site(where)}: model.eval() is missing, so "
        "dropout or batch norm stay active during evaluation",
        share,
        max_share,
        int(noisy[0]),
        Table(
            ("step", "validation loss", "mode"),
            tuple(
                (int(s), float(v), "train")
                for s, v in zip(trace.val["step"][shown][:4], trace.val["value"][shown][:4], strict=True)
            ),
            0,
        ),
        f"{_kinds(kinds)} was in train mode while losses were computed without gradients: two passes over the "
        "same data differ.",
        "call model.eval() before validation and model.train() after it",
    )


def _scheduler_first(trace: Trace, max_share: float) -> Finding | None:
    """A scheduler stepped once before the first step of the optimizer, and never after its last."""
    scheduler = _at(trace, "scheduler")
    steps = np.sort(np.concatenate([_at(trace, "step"), _at(trace, "skipped_step")]))
    if scheduler.size < 3 or steps.size < 2:
        return None
    whos = trace.calls["who"][scheduler]
    before = scheduler[scheduler < steps[0]]
    after_last = (scheduler > steps[-1]).any()
    if not before.size or before.size > np.unique(whos).size or (after_last and not trace.cut):
        return None
    if trace.cut and not (abs(scheduler.size - steps.size) <= 1 and _alternate(scheduler, steps)):
        return None
    return _finding(
        "scheduler",
        f"the scheduler steps before the optimizer, in each of {counted(scheduler.size, 'call')}"
        f"{at_site(_site(trace, scheduler))}: the first learning rate is never used",
        1.0,
        max_share,
        0,
        None,
        "One call comes before the first optimizer step and none after the last: each learning rate is one call early.",
        "call scheduler.step() after optimizer.step()",
    )


def _alternate(first: Places, second: Places) -> bool:
    n = min(first.size, second.size)
    return bool((first[:n] < second[:n]).all() and (second[: n - 1] < first[1:n]).all())


def _scheduler_per_batch(trace: Trace, max_idle: float) -> Finding | None:
    """A learning rate that is practically zero for the rest of the run, because the scheduler steps once a batch."""
    scheduler = _at(trace, "scheduler")
    if not scheduler.size:
        return None
    for optimizer in stepping(trace):
        mine = np.flatnonzero(trace.steps["optimizer"] == optimizer)
        lr = trace.steps["lr"][mine]
        if mine.size < 20 or not np.isfinite(lr).all() or not lr.max() > 0:
            continue
        busy = np.flatnonzero(lr > _IDLE * lr.max())
        idle = 1 - (busy[-1] + 1) / mine.size
        if idle <= max_idle or busy[-1] < 1:
            continue
        until = int(mine[busy[-1]])
        active = scheduler[trace.calls["step"][scheduler] <= until + 1]
        if active.size < 0.8 * (busy[-1] + 1) or not _still_high(trace, mine, int(busy[-1])):
            continue
        name = name_at(trace, int(trace.calls["who"][active[0]])) or "scheduler"
        shown = np.unique(np.linspace(0, mine.size - 1, 6).astype(int))
        return Finding(
            ok=False,
            headline=f"the scheduler is stepped per batch until the learning rate is practically zero: {name} takes it from "
            f"{number(float(lr.max()))} to {number(float(lr[min(busy[-1] + 1, lr.size - 1)]))} by step "
            f"{until + 1} of {mine.size:,}, "
            f"{idle:.0%} of the run is left (max_idle={max_idle:g}){at_site(_site(trace, active))}",
            culprit="scheduler",
            amount=idle,
            limit=("max_idle", max_idle),
            step=until,
            table=Table(
                ("step", "lr", "loss"),
                tuple((int(mine[i]), float(lr[i]), float(trace.steps["loss"][mine[i]])) for i in shown),
                culprit=int(np.searchsorted(shown, busy[-1])) if busy[-1] <= shown[-1] else None,
            ),
            shows=f"{counted(scheduler.size, 'scheduler step')} for {counted(mine.size, 'optimizer step')}: "
            "the learning rate decays too "
            "fast, and the loss freezes where it was then.",
            next_step="call scheduler.step() once an epoch, outside the batch loop, or give its lengths in batches",
        )
    return None


def _still_high(trace: Trace, mine: Places, until: int) -> bool:
    """Whether the loss had not come down to a twentieth of its start when the learning rate was gone."""
    loss = trace.steps["loss"][mine]
    loss = loss[np.isfinite(loss)]
    tail = loss[min(until, loss.size - 5) :]
    return bool(tail.size and float(np.median(tail)) > 0.05 * float(np.median(loss[:3])))


_RULES = (
    _step_before_backward,
    _cleared_before_step,
    _left_in_eval,
    _clip_before_unscale,
    _clip_misplaced,
    _scheduler_first,
    _validated_in_train_mode,
)


def _finding(
    call: str, headline: str, share: float, max_share: float, step: int, table: Table | None, shows: str, next_step: str
) -> Finding:
    return Finding(
        ok=False,
        headline=f"{headline} (max_share={max_share:g})",
        culprit=call,
        amount=share,
        limit=("max_share", max_share),
        step=step,
        table=table,
        shows=shows,
        next_step=next_step,
    )


def _kinds(kinds: list[str]) -> str:
    """Return the first kind of layer by name, and that there are others."""
    return kinds[0] + (f" (with {', '.join(kinds[1:4])})" if len(kinds) > 1 else "")


def _at(trace: Trace, kind: str) -> Places:
    return np.flatnonzero(trace.of(kind)).astype(np.int64)


def _last_before(places: Places, others: Places) -> Places:
    """Return for each place the last of ``others`` before it, -1 where there is none."""
    index = np.searchsorted(others, places) - 1
    return np.where(index >= 0, others[np.maximum(index, 0)] if others.size else -1, -1)


def _next_after(places: Places, others: Places) -> Places:
    """Return for each place the next of ``others`` after it, a place beyond all where there is none."""
    index = np.searchsorted(others, places, side="right")
    beyond = np.iinfo(np.int64).max
    return np.where(
        index < others.size, others[np.minimum(index, max(others.size - 1, 0))] if others.size else beyond, beyond
    )


def _between(places: Places, start: Places, end: Places) -> NDArray[np.bool_]:
    """Return which places lie after a start that no end has followed yet, with an end still to come."""
    return np.asarray(
        (_last_before(places, start) > _last_before(places, end))
        & (_next_after(places, end) < _next_after(places, start)),
        dtype=np.bool_,
    )


def _site(trace: Trace, places: Places) -> str:
    return common_site(trace, trace.calls["site"][places])


def _last_site(trace: Trace, kind: str, step: int) -> str:
    places = _at(trace, kind)
    places = places[trace.calls["step"][places] <= step]
    return _site(trace, places[-1:])
