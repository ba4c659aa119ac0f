"""Rules on train and eval mode: training that goes on in eval mode, validation that runs in train mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.places import at_site, counted, held_by, root_of, stepping
from pytest_mltd.checks.runs.sequence import Places, at, last_site, misordered
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.traces import Trace

_MODAL = ("Dropout", "AlphaDropout", "FeatureAlphaDropout", "BatchNorm", "SyncBatchNorm", "LazyBatchNorm")


def left_in_eval(trace: Trace, max_share: float) -> Finding | None:
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
        where = last_site(trace, "eval", step)
        back = (
            "train() is never called again"
            if not trace.of("train")[trace.calls["step"] >= step].any()
            else "train() comes too late"
        )
        return misordered(
            "eval",
            f"the model is left in eval mode while training, from step {step} on: {off.size:,} of {counted(mine.size, 'step')}"
            f"{at_site(where)}",
            share,
            max_share,
            step,
            _mode_table(trace, mine, mode, int(off[0])),
            f"{_kinds(kinds)} works otherwise there (no dropout, old batch statistics), and after eval() {back}.",
            "call model.train() after each validation, before the next training batch",
        )
    return None


def _validated_first(trace: Trace, step: int) -> bool:
    """Whether the model was put to eval mode for a validation just before this step, and that before any training.

    The validation is known by its losses, or by a forward without gradients after that eval(), where the same line calls eval()
    again later: it belongs to a routine of validation. Who trains in eval mode on purpose says so right before training.
    """
    before = trace.of("eval") & (trace.calls["step"] == 0)
    if step != 0 or not before.any():
        return False
    if (trace.val["step"] == 0).any():
        return True
    evals, forward = at(trace, "eval"), at(trace, "forward")
    trained = forward[trace.calls["grad"][forward] == 1][:1]
    last = evals[evals < trained[0]][-1:] if trained.size else evals[:0]
    if not last.size:
        return False
    between = forward[(forward > last[0]) & (forward < trained[0])]
    validated = (trace.calls["grad"][between] == 0) & (trace.calls["value"][between] == 0)
    later = evals[trace.calls["step"][evals] > 0]
    return bool(validated.any() and (trace.calls["site"][later] == trace.calls["site"][last[0]]).any())


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


def validated_in_train_mode(trace: Trace, max_share: float) -> Finding | None:
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
    return misordered(
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


def _kinds(kinds: list[str]) -> str:
    """Return the first kind of layer by name, and that there are others."""
    return kinds[0] + (f" (with {', '.join(kinds[1:4])})" if len(kinds) > 1 else "")
