"""A listener that ends the program after a number of steps."""

from __future__ import annotations

from torch.optim.optimizer import Optimizer

from pytest_mltd.recording.hooks import Listener
from pytest_mltd.recording.naming import Identities


class Cutter(Listener):
    """Counts the outermost steps of each optimizer, and raises out of the last wanted one of the busiest."""

    last = True  # the recordings take the step first

    def __init__(self, steps: int, error: type[BaseException]) -> None:
        self._steps = steps
        self._error = error
        self._counts: Identities[int] = Identities()

    def after_step(self, optimizer: Optimizer) -> None:
        count = (self._counts.get(optimizer) or 0) + 1
        self._counts.put(optimizer, count)
        if count >= self._steps:
            raise self._error(f"after {count} steps")
