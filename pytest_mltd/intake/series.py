"""The numbers of a log by name, in the order in which they were written, and the one curve that a restarted run leaves."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_NUMBERS: Final = 20_000_000  # 320 MB; a guess: a million steps of twenty names
MAX_NAMES: Final = 20_000  # a guess; a log of per-layer norms has some thousands
MAX_STEP: Final = 100_000_000  # as in a trace


class TooMuch(ValueError):
    """A log holds more than is read."""


@dataclass(slots=True)
class Points:
    """Steps and values of one name, as they were written."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    @property
    def size(self) -> int:
        return len(self.steps)


@dataclass(slots=True)
class Scalars:
    """What a log says: numbers by name, and remarks on what could not be read."""

    points: dict[str, Points] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    torn: bool = False
    size: int = 0

    def add(self, name: str, step: int, value: float) -> None:
        """Append a number.

        Raises:
            TooMuch: there are too many of them, or of their names.
        """
        held = self.points.get(name)
        if held is None:
            if len(self.points) >= MAX_NAMES:
                raise TooMuch(f"more than {MAX_NAMES:,} names")
            held = self.points[name] = Points()
        if self.size >= MAX_NUMBERS:
            raise TooMuch(f"more than {MAX_NUMBERS:,} numbers")
        held.steps.append(step)
        held.values.append(value)
        self.size += 1

    def curves(self) -> Iterator[tuple[str, Steps, Floats, int]]:
        """Yield for each name its steps, ascending, its values, and how often the run was begun again."""
        for name, held in self.points.items():
            steps, values = np.array(held.steps, dtype=np.int64), np.array(held.values, dtype=np.float64)
            usable = (steps >= 0) & (steps <= MAX_STEP)
            yield name, *settled(steps[usable], values[usable])


def settled(steps: Steps, values: Floats) -> tuple[Steps, Floats, int]:
    """Return one value a step, ascending, and how often the steps went back.

    A run that was resumed from a checkpoint writes some steps again; what it wrote later counts, and what the abandoned part
    had written at or after that step does not. Where steps go back all the time (several writers), they are only sorted.
    """
    back = int((np.diff(steps) < 0).sum())
    if back <= 20:  # a guess: jobs are restarted some times, not dozens of times
        least_after = np.minimum.accumulate(steps[::-1])[::-1][1:]
        kept = np.append(steps[:-1] < least_after, True)[: steps.size]
        return steps[kept], values[kept], back
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    last = np.append(np.diff(steps) > 0, True)
    return steps[last], values[last], 0
