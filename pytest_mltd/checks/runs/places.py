"""How places of a run are named in a message: optimizers, lines of the user's code, numbers of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.core.traces import Trace


def optimizer_label(trace: Trace, index: int) -> str:
    """Return an optimizer's class, with its number where the run has several: ``Adam``, ``Adam (optimizer 1)``."""
    name = trace.optimizers[index].name if 0 <= index < len(trace.optimizers) else "optimizer"
    return f"{name} (optimizer {index})" if len(trace.optimizers) > 1 else name


def stepping(trace: Trace) -> list[int]:
    """Return the indexes of the optimizers that stepped."""
    owners = trace.steps["optimizer"]
    return [int(i) for i in np.unique(owners[owners >= 0])]


def site_of(trace: Trace, kind: str) -> str:
    """Return the line from which most calls of a kind were made, "" where none was seen."""
    return common_site(trace, trace.calls["site"][trace.of(kind)])


def middle(values: NDArray[Any]) -> float:
    """Return the median of the finite values, NaN where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


def name_at(trace: Trace, index: int) -> str:
    """Return one of the trace's names, "" for an index beyond them."""
    return trace.names[index] if 0 <= index < len(trace.names) else ""


def common_site(trace: Trace, sites: NDArray[Any]) -> str:
    """Return the most frequent of these lines, "" where none is known."""
    known = sites[(sites >= 0) & (sites < len(trace.sites))]
    return trace.sites[int(np.bincount(known).argmax())] if known.size else ""


def at_site(site: str) -> str:
    """Return `` (train.py:31)`` for a known line, "" for an unknown one."""
    return f" ({site})" if site else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names as a person lists them: ``'a', 'b' and 4 more``."""
    shown = [f"'{n}'" for n in names[:most]]
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join(([", ".join(shown[:-1])] if len(shown) > 1 else []) + shown[-1:])


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 step``, ``2 steps``, ``1,284 steps``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def held_by(trace: Trace, optimizer: int) -> NDArray[np.int64]:
    """Return the columns of the parameters that an optimizer holds."""
    return np.array([i for i, p in enumerate(trace.parameters) if optimizer in p.optimizers], dtype=np.int64)


def update_rows(trace: Trace, optimizer: int) -> NDArray[np.int64]:
    """Return the rows of ``updates`` at this optimizer's steps."""
    return _rows(trace, optimizer, trace.updates["step"])


def norm_rows(trace: Trace, optimizer: int, most: int = 0) -> NDArray[np.int64]:
    """Return the rows of ``parameter_norms`` at this optimizer's steps, evenly thinned to ``most`` when that is given."""
    rows = _rows(trace, optimizer, trace.parameter_norms["step"])
    if most and rows.size > most:
        rows = rows[np.linspace(0, rows.size - 1, most).astype(np.int64)]
    return rows


def _rows(trace: Trace, optimizer: int, at: NDArray[Any]) -> NDArray[np.int64]:
    owners = trace.steps["optimizer"]
    return np.flatnonzero(np.isin(at, np.flatnonzero(owners == optimizer))).astype(np.int64)


def gradients_at(trace: Trace, steps: NDArray[Any]) -> NDArray[np.float64]:
    """Return the norms of the used gradients at these steps, one column a parameter; NaN at a step without any."""
    norms = trace.parameter_norms
    found = np.full((steps.size, len(trace.parameters)), np.nan)
    _, mine, rows = np.intersect1d(steps, norms["step"], return_indices=True)
    found[mine] = norms["grad_used"][rows]
    return found


def not_recorded(trace: Trace, what: str, table: str) -> str:
    """Say that a table is empty because of the level of recording, or return ""."""
    if trace.level in ("losses", "scalars"):
        return f"{what} were not recorded (level {trace.level!r})"
    return f"{what} were not recorded" if getattr(trace, table)["step"].size == 0 else ""


def root_of(trace: Trace, name: str) -> str:
    """Return the root module that a parameter hangs in. Names begin with the root's only where a run has several."""
    roots = [m.name for m in trace.modules if m.root]
    if len(roots) == 1:
        return roots[0]
    mine = [r for r in roots if name == r or name.startswith((r + ".", r + "["))]
    return max(mine, key=len, default=name.partition(".")[0].partition("[")[0])


def made_at(trace: Trace, optimizer: int) -> str:
    """Return ``, made at train.py:31`` for an optimizer whose line is known, else ""."""
    known = 0 <= optimizer < len(trace.optimizers) and trace.optimizers[optimizer].site
    return f", made at {trace.optimizers[optimizer].site}" if known else ""
