"""What a run leaves behind in its process: random generators that moved on, and the state of the user's modules."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

MOST = 1000  # elements of a container that are looked at; beyond that its length has to do


def generators() -> list[Callable[[], None]]:
    """Return, for each generator of random numbers that a program holds itself, what puts it back as it is now."""
    return [restore for thing in gc.get_objects() if (restore := _restorer(thing)) is not None]


def put_back(restorers: list[Callable[[], None]]) -> None:
    for restore in restorers:
        restore()


def module_state(modules: Iterator[ModuleType]) -> dict[str, str]:
    """Return each global of the user's modules by its plain name, with a word on what it is now."""
    return {
        f"{module.__name__}.{name}": _word(value)
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("__") and not isinstance(value, (ModuleType, type)) and not callable(value)
    }


def _restorer(thing: Any) -> Callable[[], None] | None:
    kind = type(thing)
    if kind is random.Random:
        state = thing.getstate()
        return lambda: thing.setstate(state)
    numpy_random, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy_random is not None and issubclass(kind, numpy_random.BitGenerator):
        held = thing.state

        def restore() -> None:
            thing.state = held

        return restore
    if torch is not None and kind is torch.Generator:
        kept = thing.get_state()
        return lambda: thing.set_state(kept)
    return None


def _word(value: Any) -> str:
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return repr(value)[:200]
    if isinstance(value, random.Random):
        return str(hash(value.getstate()))
    state = getattr(getattr(value, "bit_generator", None), "state", None)
    if state is not None:
        return str(state)
    if callable(getattr(value, "get_state", None)):
        return str(value.get_state())
    if hasattr(value, "__len__"):
        return f"{type(value).__name__} of {len(value)} " + (repr(value)[:MOST] if len(value) < MOST else "")
    return type(value).__name__
