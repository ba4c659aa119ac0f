"""How far a run is, told now and then while it goes on."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pytest_mltd.recording import hooks


@contextlib.contextmanager
def telling(tell: Callable[[int, float | None], None], *, first: float = 2.0, slowest: float = 60.0) -> Iterator[None]:
    """Call ``tell(steps, loss)`` from another thread, after ``first`` seconds and then at twice the distance each time.

    Whole lines between the program's own would be noise if they came every two seconds, and a line that is written over
    would garble the program's. ``steps`` are those of the busiest optimizer, ``loss`` the last that went backward.
    """
    seen = _Seen()
    over = threading.Event()

    def watch() -> None:
        wait = first
        while not over.wait(wait):
            wait = min(2 * wait, slowest)
            tell(seen.steps, seen.last_loss)

    hooks.join(seen)
    watcher = threading.Thread(target=watch, name="mltd progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        hooks.leave(seen)


class _Seen(hooks.Listener):
    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self._loss: Any = None

    def before_backward(
        self, tensors: Any, gradients: Any, inputs: Any, create_graph: bool, accumulate: bool, frame: Any
    ) -> None:
        if accumulate:
            # Kept as it is: reading its value here would stop an accelerator at every step.
            self._loss = next((t.detach() for t in tensors if t.numel() == 1), self._loss)

    def after_step(self, optimizer: Any) -> None:
        self._steps[id(optimizer)] += 1

    @property
    def steps(self) -> int:
        return max(tuple(self._steps.values()), default=0)

    @property
    def last_loss(self) -> float | None:
        loss = self._loss
        return None if loss is None else float(loss)
