"""What of a recorded run is worth comparing before a fix and after it: a few numbers by split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pytest_mltd.core.traces import Trace

TAIL = 0.1  # share of the steps whose median loss stands for the end of a run; a guess: enough to smooth batches


def metrics_of(traces: Iterable[Trace]) -> dict[str, float | list[float]]:
    """Return the numbers of recorded runs that go into the evidence, by "split/metric"; of several runs a list of each.

    ``train/loss`` is the median loss of the last tenth of the steps, of the loss stream with most steps; ``train/grad_norm``
    the largest gradient norm of a step, as the step used it; ``val/loss`` the last validation loss seen; then the last value of
    each number that was logged. One that is not finite is kept: it is the news.
    """
    runs = [_metrics(trace) for trace in traces]
    names = dict.fromkeys(name for run in runs for name in run)
    if len(runs) == 1:
        return dict(runs[0])
    return {name: [run[name] for run in runs if name in run] for name in names}


def _metrics(trace: Trace) -> dict[str, float]:
    found: dict[str, float] = {}
    streams = trace.steps["stream"]
    if len(streams):
        busiest = np.bincount(streams[streams >= 0]).argmax() if (streams >= 0).any() else -1
        losses = trace.steps["loss"][streams == busiest]
        tail = losses[-max(1, int(len(losses) * TAIL)) :]
        found["train/loss"] = float(np.median(tail))
        # Not nanmax: a norm that became NaN is what the reader has to see. Steps without one are NaN throughout.
        norms = trace.steps["grad_norm_used"]
        if not np.isnan(norms).all():
            found["train/grad_norm"] = float(norms.max())
    if len(trace.val["value"]):
        found["val/loss"] = float(trace.val["value"][-1])
    for name in dict.fromkeys(trace.names):
        values = trace.scalars(name)[1]
        if len(values):
            found[name] = float(values[-1])
    return found
