"""How strongly one column tells another: areas under curves, shares explained, and what shuffled labels would give."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def auc(values: Floats, positive: Bools, weights: Floats | None = None) -> float:
    """Return the chance that a positive row's value is larger than another's, ties counting half (Mann and Whitney 1947).

    NaN when one of the two is empty.
    """
    if weights is None:
        levels, inverse = np.unique(values, return_inverse=True)
        ones = np.bincount(inverse, weights=positive, minlength=len(levels))
        zeros = np.bincount(inverse, minlength=len(levels)) - ones
    else:
        levels, inverse = np.unique(values, return_inverse=True)
        ones = np.bincount(inverse, weights=weights * positive, minlength=len(levels))
        zeros = np.bincount(inverse, weights=weights, minlength=len(levels)) - ones
    total = float(ones.sum() * zeros.sum())
    if not total:
        return math.nan
    return float(np.sum(ones * (np.cumsum(zeros) - zeros / 2)) / total)


def folded(area: float) -> float:
    """Return an area as it is with the better of both directions: 0.5 to 1."""
    return max(area, 1 - area)


def shuffled_spread(positives: int, others: int) -> float:
    """Return the standard deviation of the area when labels are shuffled (Mann and Whitney 1947)."""
    return math.sqrt((positives + others + 1) / (12 * positives * others)) if positives and others else math.nan


def weakest_pair(values: Floats, classes: NDArray[np.int64], count: int, fewest: int) -> float:
    """Return the smallest folded area among neighbouring classes: a column tells the label if it parts every two of them.

    Classes are neighbours in the order of their medians; those with fewer than ``fewest`` rows are passed over.
    """
    groups = [values[classes == k] for k in range(count)]
    groups = sorted((g for g in groups if len(g) >= fewest), key=lambda g: float(np.median(g)))
    areas = [
        folded(auc(np.concatenate([a, b]), np.repeat([False, True], [len(a), len(b)])))
        for a, b in itertools.pairwise(groups)
    ]
    return min(areas, default=math.nan)


def level_area(codes: NDArray[np.int64], positive: Bools) -> float:
    """Return the area of a category's levels, each row judged by the other rows of its level (leave one out).

    A level that was seen once says nothing, so names and tickets get 0.5 or less by themselves.
    """
    if not len(codes):
        return math.nan
    sizes = np.bincount(codes + 1).astype(np.float64)
    ones = np.bincount(codes + 1, weights=positive, minlength=len(sizes))
    prior = float(positive.mean())
    rest = sizes - 1 + 1  # one row of weight at the prior keeps a level of one defined
    with_one, with_zero = (ones - 1 + prior) / np.maximum(rest, 1), (ones + prior) / np.maximum(rest, 1)
    values = np.concatenate([with_one, with_zero])
    weights = np.concatenate([ones, sizes - ones])
    kept = weights > 0
    truth = np.repeat([True, False], len(sizes))
    return auc(values[kept], truth[kept], weights[kept])


def binned(values: Floats, bins: int = 32) -> NDArray[np.int64]:
    """Return which of at most ``bins`` parts of equal size each value falls into."""
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(cuts, values, side="right").astype(np.int64)


def straight_r2(values: Floats, target: Floats) -> float:
    """Return R² of a straight line."""
    x, y = values - values.mean(), target - target.mean()
    xx, yy = float(x @ x), float(y @ y)
    if not xx > 0 or not yy > 0 or not math.isfinite(xx * yy):
        return 0.0
    return min(float(x @ y) ** 2 / (xx * yy), 1.0)


def ranks(values: Floats) -> Floats:
    """Return ranks from 0, ties at their mean."""
    _levels, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2 - 1)[inverse], dtype=np.float64)


def is_monotone(values: Floats, target: Floats) -> bool:
    """Tell whether the target never falls, or never rises, as the value grows (equal values need not agree)."""
    order = np.lexsort((target, values))
    x, y = values[order], target[order]
    start = np.flatnonzero(np.r_[True, x[1:] != x[:-1]])
    low, high = y[start], y[np.r_[start[1:] - 1, len(y) - 1]]
    return bool((high[:-1] <= low[1:]).all() or (low[:-1] >= high[1:]).all())


def resolution(values: Floats) -> float:
    """Return the step of the grid that the values are written on: 0.1 for one decimal; 0 for values of full precision."""
    scale = float(np.max(np.abs(values), initial=0.0)) or 1.0
    for decimals in range(-6, 10):
        step = 10.0**-decimals
        if step > scale:
            continue
        if step < scale * 1e-9:
            break
        if np.all(
            np.abs(values / step - np.round(values / step)) < 1e-6 * np.maximum(1.0, np.abs(values / step) * 1e-6)
        ):
            return step
    return 0.0


def curve_errors(values: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return how far each point lies from the straight line between its two neighbours, and how steep that line is.

    Points with the same value are one point, at their median. A rule without error is found whatever its form.
    """
    levels, inverse = np.unique(values, return_inverse=True)
    order = np.lexsort((target, inverse))
    start = np.flatnonzero(np.r_[True, np.diff(inverse[order]) > 0])
    end = np.r_[start[1:], len(order)]
    middle = target[order][(start + end - 1) // 2]
    if len(levels) < 5:
        return np.zeros(0), np.zeros(0)
    width = levels[2:] - levels[:-2]
    slope = (middle[2:] - middle[:-2]) / width
    guess = middle[:-2] + slope * (levels[1:-1] - levels[:-2])
    at = inverse - 1
    inside = (at >= 0) & (at < len(guess))
    return np.abs(target[inside] - guess[at[inside]]), np.abs(slope)[at[inside]]


def tokens(texts: Iterable[str]) -> list[set[str]]:
    """Return the words of each text, in lower case."""
    import re

    word = re.compile(r"\w+")
    return [set(word.findall(t.lower())) for t in texts]


def few_by_luck(seen: int, expected: float) -> float:
    """Return the chance of so few events, or fewer, where so many are expected (Poisson)."""
    return sum(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(seen + 1))
