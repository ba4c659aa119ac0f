"""What a fault is, how one is declared, found by its name, planted and taken out again.

A fault is a generator function with one ``yield``, in one of the files of this room; nothing else is edited to add one::

    @fault(reds=("gradients.stale_gradients",), says="zero_grad does nothing", needs="zero_grad")
    def stale_gradients(planting):
        with standing_in(Optimizer, "zero_grad", …):
            yield

Loading the catalogue imports no torch: a family's file imports it where it plants, and other files are not loaded for it.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pytest_mltd.core.asking import asked_now

R = TypeVar("R")


@dataclass(slots=True)
class Planting:
    """One fault, planted for a block. ``times`` counts how often it did its harm."""

    fault: Fault
    times: int = 0
    over: bool = False  # the block has ended: what the program still holds of ours must do nothing any more

    @property
    def idle(self) -> bool:
        """Whether to do nothing: the block has ended, or a question is asked of a run or a model.

        What such a question calls is no part of the program. One that is asked of a training function runs the program itself.
        """
        return self.over or not {"run", "model"}.isdisjoint(asked_now())

    def harmed(self) -> None:
        """Note that the fault changed what the program did."""
        self.times += 1

    @property
    def took(self) -> bool:
        """The fault changed something; where it did not, nothing follows from what the run looks like."""
        return self.times > 0

    @property
    def sentence(self) -> str:
        """Say what was done, or why nothing was."""
        if self.took:
            return f"planted '{self.fault.name}': {self.fault.says} ({self.times:,} {'time' if self.times == 1 else 'times'})"
        return f"'{self.fault.name}' was not planted: no {self.fault.needs} was seen"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that can be planted.

    ``says`` is what it does, ``reds`` the ids of the findings one of which it should turn red, as a root cause; ``needs`` what
    the program must do for the fault to take hold, as in "no … was seen".
    """

    name: str
    family: str
    says: str
    reds: tuple[str, ...]
    needs: str
    plant: Callable[[Planting], Iterator[None]] = field(repr=False, compare=False)


def fault(
    *, reds: tuple[str, ...], says: str, needs: str
) -> Callable[[Callable[[Planting], Iterator[None]]], Callable[[Planting], Iterator[None]]]:
    """Make a generator function a fault of the catalogue: planted up to its ``yield``, taken out after it.

    Args:
        reds: ids of findings; one of them should be a root cause of the failure while the fault is planted.
        says: what it does to the program, as a clause.
        needs: what the program must do for it, as in "no … was seen".
    """

    def declare(plant: Callable[[Planting], Iterator[None]]) -> Callable[[Planting], Iterator[None]]:
        name, family = plant.__name__, plant.__module__.rpartition(".")[2]
        plant.fault = Fault(name, family, says, reds, needs, plant)  # type: ignore[attr-defined]
        return plant

    return declare


@functools.cache
def catalogue() -> tuple[Fault, ...]:
    """Return every fault that can be planted, by family, then in the order in which a file tells them."""
    found = [
        value.fault
        for module in _families()
        for value in vars(module).values()
        if isinstance(getattr(value, "fault", None), Fault) and value.__module__ == module.__name__
    ]
    return tuple(found)


def find(name: str) -> Fault:
    """Return the fault of a name.

    Raises:
        TypeError: the name is no text.
        ValueError: there is none; the message names the nearest.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: the name of a fault is needed, as in 'stale_gradients', not {name!r}")
    known = {f.name: f for f in catalogue()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"the nearest is {near[0]!r}" if near else "mltd faults lists them"
    raise ValueError(f"name: no fault {name!r} can be planted; {hint}")


@contextlib.contextmanager
def planted(name: str) -> Iterator[Planting]:
    """Plant a fault for a block; afterwards, also after an exception, torch and the program are as they were.

    Ask the questions inside of the block: some faults are in how the model answers a probe.

    Args:
        name: of a fault, as ``mltd faults`` lists them.

    Yields:
        The planting: after the block, ``took`` says whether the fault took hold, ``sentence`` what it did.

    Raises:
        ValueError: there is no such fault; the message names the nearest.
    """
    planting = Planting(find(name))
    try:
        with contextlib.contextmanager(planting.fault.plant)(planting):
            yield planting
    finally:
        planting.over = True


def _families() -> Iterator[ModuleType]:
    """Yield the modules of this room in which a fault is declared, by their names."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if re.search(r"^@fault\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            yield importlib.import_module(f"{__package__}.{file.stem}")


@contextlib.contextmanager
def standing_in(
    planting: Planting,
    owner: Any,
    name: str,
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
    *,
    of_the_model: bool = False,
) -> Iterator[None]:
    """Put a function in the place of an attribute of a class or module, inherited ones included, for the block.

    Args:
        planting: the fault that is planted; while it is idle, the original is called.
        owner: a class or a module.
        name: of its function.
        wrap: takes the original and returns what to call instead.
        of_the_model: what is changed is how the model answers, so that a probe of it must meet it too.
    """
    own = name in vars(owner)
    original = getattr(owner, name)
    instead = wrap(original)

    @functools.wraps(original)
    def ours(*args: Any, **kwargs: Any) -> Any:
        idle = planting.over if of_the_model else planting.idle
        return (original if idle else instead)(*args, **kwargs)

    setattr(owner, name, ours)
    try:
        yield
    finally:
        if vars(owner).get(name) is ours:  # nobody has put another in its place meanwhile
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
