"""The calls of a run as a sequence: where one kind stands before, after or between others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.runs.places import common_site
from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.traces import Trace

Places = NDArray[np.int64]


def at(trace: Trace, kind: str) -> Places:
    return np.flatnonzero(trace.of(kind)).astype(np.int64)


def last_before(places: Places, others: Places) -> Places:
    """Return for each place the last of ``others`` before it, -1 where there is none."""
    index = np.searchsorted(others, places) - 1
    return np.where(index >= 0, others[np.maximum(index, 0)] if others.size else -1, -1)


def next_after(places: Places, others: Places) -> Places:
    """Return for each place the next of ``others`` after it, a place beyond all where there is none."""
    index = np.searchsorted(others, places, side="right")
    beyond = np.iinfo(np.int64).max
    return np.where(
        index < others.size, others[np.minimum(index, max(others.size - 1, 0))] if others.size else beyond, beyond
    )


def between(places: Places, start: Places, end: Places) -> NDArray[np.bool_]:
    """Return which places lie after a start that no end has followed yet, with an end still to come."""
    return np.asarray(
        (last_before(places, start) > last_before(places, end)) & (next_after(places, end) < next_after(places, start)),
        dtype=np.bool_,
    )


def site(trace: Trace, places: Places) -> str:
    return common_site(trace, trace.calls["site"][places])


def last_site(trace: Trace, kind: str, step: int) -> str:
    places = at(trace, kind)
    places = places[trace.calls["step"][places] <= step]
    return site(trace, places[-1:])


def misordered(
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
