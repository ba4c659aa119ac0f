"""Rules on the scheduler: stepped before the optimizer, or so often that the learning rate is gone."""

from __future__ import annotations

import numpy as np

from pytest_mltd.checks.runs.places import at_site, counted, name_at, stepping
from pytest_mltd.checks.runs.sequence import Places, at, misordered, site
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import number
from pytest_mltd.core.traces import Trace

_BEGUN = 5.0  # times the first rate: torch's cycle has gone 8% of its length there
_IDLE = 2e-3  # of the highest learning rate, so that three decays by ten are below; a step then moves next to nothing


def scheduler_first(trace: Trace, max_share: float) -> Finding | None:
    """A scheduler stepped once before the first step of the optimizer, and never after its last."""
    scheduler = at(trace, "scheduler")
    steps = np.sort(np.concatenate([at(trace, "step"), at(trace, "skipped_step")]))
    if scheduler.size < 3 or steps.size < 2:
        return None
    whos = trace.calls["who"][scheduler]
    before = scheduler[scheduler < steps[0]]
    after_last = (scheduler > steps[-1]).any()
    if not before.size or before.size > np.unique(whos).size or (after_last and not trace.cut):
        return None
    if trace.cut and not (abs(scheduler.size - steps.size) <= 1 and _alternate(scheduler, steps)):
        return None
    return misordered(
        "scheduler",
        f"the scheduler steps before the optimizer, in each of {counted(scheduler.size, 'call')}"
        f"{at_site(site(trace, scheduler))}: the first learning rate is never used",
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


def scheduler_per_batch(trace: Trace, max_idle: float) -> Finding | None:
    """A learning rate that is practically zero for the rest of the run, because the scheduler steps once a batch."""
    scheduler = at(trace, "scheduler")
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
            f"{idle:.0%} of the run is left (max_idle={max_idle:g}){at_site(site(trace, active))}",
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


def one_cycle_not_begun(trace: Trace, max_share: float) -> Finding | None:
    """A one-cycle schedule that is hardly begun when training is over: its length is in batches, its steps are in epochs.

    Less than five times the first rate is under 8% of the cycle, of which the rise alone is 30% (torch's defaults).
    """
    named = [i for i, n in enumerate(trace.names) if n == "OneCycleLR"]
    calls = at(trace, "scheduler")
    calls = calls[np.isin(trace.calls["who"][calls], named)]
    if trace.cut or calls.size < 3 or len(stepping(trace)) != 1:
        return None
    lr, steps = trace.steps["lr"], trace.n_steps
    share = 1 - calls.size / steps
    if calls.size > 0.5 * steps or share <= max_share or not 0 < lr[0] < lr[-1] or (np.diff(lr) < 0).any():
        return None
    reached = float(lr[-1] / lr[0])
    if reached >= _BEGUN:
        return None
    shown = np.unique(np.linspace(0, steps - 1, 5).astype(int))
    return misordered(
        "scheduler",
        f"the one-cycle scheduler has hardly begun when training ends: OneCycleLR steps {counted(calls.size, 'time')} in "
        f"{counted(steps, 'optimizer step')}{at_site(site(trace, calls))}, and takes the learning rate from "
        f"{number(float(lr[0]))} to {number(float(lr[-1]))} only",
        share,
        max_share,
        0,
        Table(("step", "lr", "loss"), tuple((int(i), float(lr[i]), float(trace.steps["loss"][i])) for i in shown), 0),
        "It rises to its highest rate in the first 30% of its length and falls after that: "
        "this one has done less than 8% of it.",
        "call scheduler.step() after each optimizer step, or give total_steps in epochs",
    )
