"""What is predicted: classes or a number, read from the label's column, with the rows in which it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_mltd.checks.tables.columns import Column, column_of, written
from pytest_mltd.checks.tables.strength import Bools, Floats

MOST_CLASSES = 20  # whole numbers of more different values are an amount, not a class; a guess
MOST_NAMED = 200  # text of more different values is no class


@dataclass(frozen=True, slots=True)
class Target:
    """The label of the rows in which it is known.

    ``classes`` numbers each row's class (None for an amount) and ``names`` names them; ``numbers`` holds the label as
    float64 where it is an amount or an ordered code (None for names). ``known`` marks the rows of the table it was read from.
    """

    name: str
    known: Bools
    classes: NDArray[np.int64] | None
    names: tuple[str, ...]
    numbers: Floats | None

    @property
    def rows(self) -> int:
        """How many rows have a label."""
        return int(self.known.sum())


def read_target(column: Column) -> Target | str:
    """Return the label, or in words why nothing can be asked of it."""
    known = ~column.missing
    present = column.at(known)
    if not len(present):
        return f"the label {column.name!r} is missing in every row" if len(column) else "there are no rows"
    numeric = _numeric(present)
    codes, levels = present.codes()
    if len(levels) < 2:
        return f"the label {column.name!r} is {written(levels[0])!r} in every row"
    if numeric is not None and not _is_code(numeric, levels):
        return Target(column.name, known, None, (), numeric)
    if len(levels) > MOST_NAMED or 2 * len(levels) > len(present):
        return (
            f"the label {column.name!r} is text of {len(levels):,} different values in {len(present):,} rows: no class"
        )
    return Target(column.name, known, codes, tuple(written(v) for v in levels), numeric)


def pooled(columns: tuple[Column, Column]) -> Column | None:
    """Return one column of the rows of both, None if they are of different kinds."""
    first, second = columns
    if first.kind != second.kind and {first.kind, second.kind} <= {"number", "flag"}:
        first, second = (column_of(c.name, c.numbers()) for c in (first, second))
    if first.kind != second.kind:
        if first.missing.all():
            return Column(second.name, second.kind, _both(_like(first, second), second.values), _gone(first, second))
        if second.missing.all():
            return Column(first.name, first.kind, _both(first.values, _like(second, first)), _gone(first, second))
        return None
    return Column(first.name, first.kind, _both(first.values, second.values), _gone(first, second))


def _both(first: Any, second: Any) -> Any:
    return np.concatenate([first, second])


def _gone(first: Column, second: Column) -> Bools:
    return np.concatenate([first.missing, second.missing])


def _like(empty: Column, other: Column) -> Any:
    filled = np.zeros(len(empty), other.values.dtype)
    if other.values.dtype == object:
        filled[:] = ""
    return filled


def _numeric(present: Column) -> Floats | None:
    """Return the label as numbers if it is one (text that holds nothing but numbers too)."""
    if present.kind in ("flag", "nested"):
        return None
    numbers = present.numbers()
    return None if np.isnan(numbers).any() else numbers


def _is_code(numbers: Floats, levels: list[Any]) -> bool:
    """Tell a code for classes (0/1, 1 to 5) from an amount."""
    if len(levels) == 2:
        return True
    whole = bool((numbers == np.round(numbers)).all())
    return whole and len(levels) <= MOST_CLASSES and len(numbers) >= 5 * len(levels)
