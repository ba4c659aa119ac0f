"""How many rows of two tables agree by chance, though nobody copied one: coarse grids, one-hot codes, few columns.

Two rows that agree in everything were copied, or agreed by chance. Chance leaves near misses: where rows agree by chance in
all columns, many more agree in all but some. A copied row has none of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_mltd.checks.tables.columns import Array, Column
from pytest_mltd.checks.tables.frames import ArrayFrame, row_keys
from pytest_mltd.checks.tables.matching import Shared, comparisons

_PARTITIONS = 8
_FIRST, _SECOND = 1_000, 20_000  # rows of each table; the first look tells tables of many digits
_LONG_TEXT = 25  # characters; a guess: shorter comments repeat by themselves ("ok, thanks")
_MANY_DIGITS = 10  # a guess: instruments give fewer, float arithmetic 15 to 17


def chance_count(shared: Shared, train_rows: int, test_rows: int, columns: Sequence[str]) -> float:
    """Return how many of the agreeing pairs of rows chance explains, estimated from samples of both tables.

    The columns are parted at random into three. With n(AB) the pairs that agree in the parts A and B but not in C, chance
    lets n(AB) times the odds of agreeing in C agree in all; those odds are read off the pairs that agree in A only, or
    in B only. The median over eight partitions counts. One or two columns cannot be parted: there the values decide,
    whether they are long text or numbers of many digits.
    """
    train, test = shared.draw(_FIRST)
    if len(columns) < 3:
        return 0.0 if any(_is_rich(test.column(c)) for c in columns) else float(shared.count)
    if _cells(train, columns) <= train_rows:
        return float(shared.count)  # so coarse a grid that every cell expects a row
    near = 3.0  # none seen among few pairs may be three (the rule of three, Hanley and Lippman-Hand 1983)
    expected = _expected(train, test, columns, float(train_rows) * test_rows, near)
    if expected > 0.01 * shared.count:
        train, test = shared.draw(_SECOND)
        expected = _expected(train, test, columns, float(train_rows) * test_rows)
    return min(expected, float(shared.count))


def _expected(
    train: ArrayFrame, test: ArrayFrame, columns: Sequence[str], pairs: float, least_near: float = 0.0
) -> float:
    how = comparisons(train, test, columns)
    keys = [
        (row_keys([train.column(c)], [h]), row_keys([test.column(c)], [h])) for c, h in zip(columns, how, strict=True)
    ]
    rng = np.random.default_rng(0)
    scale = pairs / max(train.rows * test.rows, 1)
    found = [_one_partition(keys, rng.permutation(len(keys)) % 3, least_near) for _ in range(_PARTITIONS)]
    return float(np.median(found)) * scale


def _cells(train: ArrayFrame, columns: Sequence[str]) -> float:
    """Return how many different rows the values seen could make."""
    cells = 1.0
    for c in columns:
        cells *= len(np.unique(train.column(c).keys()))
    return cells


def _is_rich(column: Column) -> bool:
    """Tell whether two equal values of a column can hardly come from chance: long text, or more digits than are measured."""
    if column.kind == "nested":
        return True
    present = column.values[~column.missing][:1000]
    if not len(present) or 2 * len(np.unique(present)) < len(present):
        return False  # the middles of bins have many digits too
    if column.kind == "text":
        return float(np.mean([len(v) for v in present])) >= _LONG_TEXT
    if column.kind != "number" or column.values.dtype.kind != "f":
        return False
    digits = [len(repr(float(v)).lstrip("-0.").replace(".", "")) for v in present]
    return float(np.median(digits)) >= _MANY_DIGITS


def _one_partition(keys: Sequence[tuple[Array, Array]], part: Array, least_near: float) -> float:
    sides = [_mixed(keys, part == p) for p in range(3)]
    full = _pairs(*_mixed(sides, np.ones(3, np.bool_)))
    single = [_pairs(*side) for side in sides]
    double = [_pairs(*_mixed(sides, np.arange(3) != p)) for p in range(3)]  # double[p] agrees in all parts but p
    total = float(len(keys[0][0])) * len(keys[0][1])
    most = 0.0
    for p in range(3):
        others = [q for q in range(3) if q != p]
        near = max(double[p] - full, least_near)
        if not near:
            continue
        odds = [max(single[p], least_near) / max(total - single[p], 1.0)]
        for q in others:
            r = next(o for o in others if o != q)
            with_p, alone = (
                double[r] - full,
                single[q] - double[r] - double[p] + full,
            )  # agree in q: with p, or in q only
            if alone >= 5:
                odds.append(with_p / alone)
        most = max(most, near * max(odds))
    return most


def _mixed(keys: Sequence[tuple[Array, Array]], chosen: Array) -> tuple[Array, Array]:
    sides = []
    for side in range(2):
        mixed = np.zeros(len(keys[0][side]), np.uint64)
        for pair in (k for k, wanted in zip(keys, chosen, strict=True) if wanted):
            mixed = mixed * np.uint64(0x9E3779B97F4A7C15) ^ pair[side]
            mixed ^= mixed >> np.uint64(29)
        sides.append(mixed)
    return sides[0], sides[1]


def _pairs(train: Array, test: Array) -> float:
    """Return how many pairs (train row, test row) share a key."""
    keys, counts = np.unique(train, return_counts=True)
    at = np.searchsorted(keys, test)
    at[at == len(keys)] = 0
    return float(counts[at[keys[at] == test]].sum())
