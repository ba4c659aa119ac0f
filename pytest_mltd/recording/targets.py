"""What the targets of a loss function are like, gathered over the walks: frequencies of labels, spread of numbers.

Told of targets on the CPU only: looking at a device's would make the program wait.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pytest_mltd.recording import graph, memory
from pytest_mltd.recording.terms import Term

Floats = NDArray[np.float64]


class Labels:
    """Frequencies of class labels, weighted as the loss weighs them."""

    def __init__(self, classes: int) -> None:
        self._counts = np.zeros(classes)
        self._weighted = np.zeros(classes)
        self._ignored = 0
        self._empty = 0  # batches without a label that counts
        self._batches: list[float] = []  # the entropy within each

    def add(self, term: Term) -> None:
        """Count the labels of one look."""
        target = graph.saved(term.node, "target")
        ignored = graph.setting(term.node, "ignore_index")
        if target is None or target.is_floating_point():
            return
        labels = memory.array(target.reshape(-1)[:_MOST])
        kept = labels[labels != ignored]
        if kept.size and not (kept.min() >= 0 and kept.max() < self._counts.size):
            return  # the loss itself refuses them
        self._ignored += labels.size - kept.size
        counts = np.bincount(kept, minlength=self._counts.size).astype(float)
        weight = graph.saved(term.node, "weight")
        self._counts += counts
        self._weighted += counts if weight is None else counts * memory.array(weight.double())
        if kept.size:
            self._batches.append(_entropy(counts))
        elif labels.size:
            self._empty += 1

    def details(self) -> dict[str, Any]:
        """Return the entropy in nats of all labels, and that within a batch; none of too few for their classes."""
        seen, count = int((self._counts > 0).sum()), float(self._counts.sum())
        found: dict[str, Any] = {"labels": int(count), "labels_seen": seen, "ignored": self._ignored}
        if self._empty:
            found["empty_batches"] = self._empty
        if seen and count >= _ENOUGH * seen:
            # the plain estimate is too low by (classes - 1) / 2n (Miller and Madow, 1955)
            found["entropy"] = _entropy(self._weighted) + (seen - 1) / (2 * count)
            found["batch_entropy"] = max(float(np.mean(self._batches)), 0.0)  # rounding makes -1e-17 of none
        return found


class Chances:
    """Targets of a binary cross entropy: probabilities, or labels of 0 and 1."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Floats = np.zeros(1)
        self._low, self._high = math.inf, -math.inf

    def add(self, term: Term) -> None:
        """Add the targets of one look."""
        values = _numbers(term)
        if values is None:
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        if self._sums.size != values.shape[1]:
            self._count, self._sums = 0, np.zeros(values.shape[1])
        self._count += values.shape[0]
        self._sums += values.sum(0)

    def details(self) -> dict[str, Any]:
        """Return range, and the loss of the best constant answer for each column."""
        if not self._count:
            return {}
        found: dict[str, Any] = {"low": self._low, "high": self._high, "labels": self._count * self._sums.size}
        means = self._sums / self._count
        if self._count >= _ENOUGH and 0 <= self._low <= self._high <= 1:
            found["entropy"] = float(np.mean([_entropy(np.array([m, 1 - m])) for m in means]))
        return found


class Amounts:
    """Targets that are numbers."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Floats = np.zeros(1)
        self._squares: Floats = np.zeros(1)
        self._low, self._high = math.inf, -math.inf

    def add(self, term: Term) -> None:
        """Add the targets of one look."""
        values = _numbers(term)
        if values is None or not np.isfinite(values).all():
            return
        if self._sums.size != values.shape[1]:
            self._count, self._sums, self._squares = 0, np.zeros(values.shape[1]), np.zeros(values.shape[1])
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._count += values.shape[0]
        self._sums += values.sum(0)
        self._squares += (values * values).sum(0)

    def details(self) -> dict[str, Any]:
        """Return range, mean, and the variance around each column's own mean."""
        if not self._count:
            return {}
        means = self._sums / self._count
        found: dict[str, Any] = {"low": self._low, "high": self._high, "mean": float(means.mean())}
        if self._count >= _ENOUGH:
            found["var"] = max(float((self._squares / self._count - means * means).mean()), 0.0)
        return found


def gatherer(term: Term, classes: int) -> Labels | Chances | Amounts | None:
    """Return what gathers the targets of a term, None where it keeps none."""
    if term.loss in ("cross_entropy", "nll_loss"):
        return Labels(classes) if classes else None
    if term.loss.startswith("binary_cross_entropy"):
        return Chances()
    return Amounts() if term.loss in ("mse_loss", "smooth_l1_loss", "huber_loss") else None


def _numbers(term: Term) -> Floats | None:
    """Return some rows of the targets as a table of numbers; those with many columns as one column."""
    target = graph.saved(term.node, "target")
    if target is None or not target.numel() or target.is_complex() or not _is_lined_up(target):
        return None
    flat = target.reshape(target.shape[0], -1) if target.dim() > 1 else target.reshape(-1, 1)
    if flat.shape[1] > _COLUMNS:
        flat = flat.reshape(-1, 1)
    return memory.array(flat[: max(1, _MOST // flat.shape[1])].double())


def _is_lined_up(target: Tensor) -> bool:
    """Whether the targets were not stretched along an axis."""
    return target.dim() > 0 and not any(n > 1 and s == 0 for n, s in zip(target.shape, target.stride(), strict=True))


def _entropy(counts: Floats) -> float:
    kept = counts[counts > 0]
    total = float(kept.sum())
    return math.log(total) - float(np.dot(kept, np.log(kept))) / total if total else 0.0


_MOST: Final = 1 << 14  # values of one batch that are looked at
_COLUMNS: Final = 256
_ENOUGH: Final = 20  # rows for each class before a frequency is taken for the data's; a guess
