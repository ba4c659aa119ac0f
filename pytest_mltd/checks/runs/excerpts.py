"""Parts of a run as a message shows them: the loss that a step belongs to, the steps around one."""

from __future__ import annotations

import numpy as np

from pytest_mltd.checks.runs.curves import Curve, curves
from pytest_mltd.core.findings import Table
from pytest_mltd.core.traces import Trace


def backward_site(trace: Trace, step: int) -> str:
    stream = int(trace.steps["stream"][step])
    return trace.streams[stream] if 0 <= stream < len(trace.streams) else ""


def curve_at(trace: Trace, step: int) -> Curve | None:
    """Return the curve of the stream that the step belongs to, else the longest."""
    found = curves(trace)
    if step < trace.n_steps:
        name = backward_site(trace, step)
        found = tuple(c for c in found if c.name == name) or found
    return found[0] if found else None


def curve_of(trace: Trace, optimizer: int) -> Curve | None:
    """Return the loss as one optimizer's steps saw it."""
    at = np.flatnonzero((trace.steps["optimizer"] == optimizer) & (trace.steps["backwards"] > 0))
    if not at.size:
        return None
    return Curve(backward_site(trace, int(at[-1])), at.astype(np.int64), trace.steps["loss"][at])


def steps_table(trace: Trace, step: int, curve: Curve | None, ahead: int = 0) -> Table | None:
    """Return the steps around one, with loss, learning rate and gradient norm, for what is known of them."""
    if not trace.n_steps or step >= trace.n_steps:
        return None
    mine = np.flatnonzero(trace.steps["optimizer"] == trace.steps["optimizer"][step])
    if trace.level == "scalars":  # a log has a loss at some steps only
        mine = mine[np.isin(mine, trace.losses["step"]) | (mine == step)]
    place = int(np.searchsorted(mine, step))
    shown = mine[max(0, place - 3) : place + 1 + ahead]
    # of a log it is not known whether its norm is the one before clipping
    norms = trace.steps["grad_norm_used" if trace.level != "scalars" else "grad_norm"]
    columns = {"loss": trace.steps["loss"], "gradient norm": norms, "lr": trace.steps["lr"]}
    if trace.level == "scalars":  # a column of NaN beside the loss would read as if that had gone wrong first
        columns = {n: c for n, c in columns.items() if n == "loss" or not np.isnan(c).all()}
    rows = tuple((int(i), *(float(c[i]) for c in columns.values())) for i in shown)
    return Table(("step", *columns), rows, culprit=int(np.searchsorted(shown, step)))
