"""How large gradients and updates are against the weights they change."""

from __future__ import annotations

import numpy as np

from pytest_mltd.checks.runs.places import held_by
from pytest_mltd.core.traces import Trace


def first_gradient(trace: Trace, optimizer: int) -> float:
    """Return the norm of the first gradient an optimizer used over the norm of its weights, where its steps follow that norm.

    0 for optimizers that scale each gradient themselves (Adam and its like), and where updates were not recorded.
    """
    owners, at = trace.steps["optimizer"], trace.updates["step"]
    if not owners.size or not at.size:
        return 0.0
    rows = np.flatnonzero((at < owners.size) & (owners[np.minimum(at, owners.size - 1)] == optimizer))
    columns = held_by(trace, optimizer)
    if not rows.size or not columns.size:
        return 0.0
    row, step = int(rows[0]), int(at[rows[0]])
    update, weight = (_norm(trace.updates[name][row, columns]) for name in ("update", "weight"))
    grad, lr = float(trace.steps["grad_norm_used"][step]), float(trace.steps["lr"][step])
    if not weight > 0 or not grad > 0 or not 0.5 * lr * grad < update < 2 * lr * grad:
        return 0.0
    return grad / weight


def _norm(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    taken = np.fmax(values.astype(np.float64), 0.0)
    return float(np.sqrt((taken**2).sum()))
