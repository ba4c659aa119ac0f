"""A training run several times, each time with one thing changed, and what the questions about it read of each run."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mltd.core.traces import Trace
from pytest_mltd.core.trials import Condition
from pytest_mltd.probes.repeating import Runs, own_folder, parameters_of, state_put_back

Around = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run: its trace, the numbers that it returned by name, what was noted beside, the last line of what it raised."""

    trace: Trace
    returned: dict[str, float]
    noted: Any = None
    raised: str = ""
    whole_error: str = ""
    wrote: str = ""


class Attempts:
    """Makes the runs of one question, each from the state that this process is in, in a child where one can be forked."""

    def __init__(self, folder: Path, *, seed: int, steps: int | None, exact: bool = False) -> None:
        self.folder, self.seed, self.steps, self.exact = folder, seed, steps, exact
        self._count = 0
        self._before: Runs | None = None

    def run(
        self,
        train: Callable[..., Any],
        *data: Any,
        around: Around = contextlib.nullcontext,
        steps: int | None = None,
        seed: int | None = None,
    ) -> Attempt:
        """Run ``train(*data)`` once, seeded, recorded, cut after ``steps`` (else those of all runs).

        Args:
            around: makes what is entered around the training in its process; what its block gets (a callable) is asked
                afterwards for plain data, which is ``noted``.
        """
        place = self.folder / f"attempt{self._count}"
        place.mkdir()
        self._count += 1
        seed = self.seed if seed is None else seed
        runs = Runs(_call(train, data, around, place, seed), self._condition(seed, steps), place, None)
        if self._before is not None:  # what the first of them learned of this process holds for all
            runs.threads, runs.before_ns = self._before.threads, self._before.before_ns
        with state_put_back(runs.where == "here"):
            ran = runs.once()
        self._before = runs
        noted = place / "noted.json"
        kept = json.loads(noted.read_text()) if noted.exists() else {}
        last = ran.raised.strip().splitlines()[-1][:160] if ran.raised else ""
        return Attempt(ran.trace, _numbers(kept), kept.get("noted"), last, ran.raised, ran.wrote)

    def _condition(self, seed: int, steps: int | None) -> Condition:
        return Condition(seed=seed, steps=self.steps if steps is None else steps, exact=self.exact)


@contextlib.contextmanager
def attempts(*, seed: int, steps: int | None, exact: bool = False) -> Iterator[Attempts]:
    """Make runs in a folder of their own, which is gone afterwards."""
    with own_folder() as folder:
        yield Attempts(folder, seed=seed, steps=steps, exact=exact)


def refuse_unfit(train: Any, example: str, *, name: str = "train") -> None:
    """Raise unless this is a plain function that can be called.

    Raises:
        TypeError: it is not.
    """
    if not callable(train) or inspect.isclass(train):
        raise TypeError(f"{name}: a function is needed, as in {example}, not {train!r}")
    if inspect.isgeneratorfunction(train) or inspect.iscoroutinefunction(train):
        raise TypeError(
            f"{name}: a plain function is needed; a generator or coroutine function does nothing when called"
        )


def refuse_small(**counts: Any) -> None:
    """Raise unless each is a whole number of at least 1.

    Raises:
        ValueError: one is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: a whole number of at least 1 is needed, not {value!r}")


def raise_if_broken(attempt: Attempt, name: str = "train") -> None:
    """Raise where the training as it is did not get through.

    Raises:
        ValueError: it raised, or was stopped before it changed a file that was there before.
    """
    __tracebackhide__ = True
    if attempt.wrote:
        raise ValueError(
            f"{name}: it was stopped before it changed {attempt.wrote!r}, a file that was there before; give it a folder of "
            "its own"
        )
    if attempt.raised:
        raise ValueError(f"{name}: it raised\n{attempt.whole_error}")


def _call(
    train: Callable[..., Any], data: tuple[Any, ...], around: Around, place: Path, seed: int
) -> Callable[[], None]:
    """Return the training as a function of nothing, that writes down what it returned."""
    given = {"seed": seed} if "seed" in parameters_of(train) else {}

    def call() -> None:
        ask = result = None
        try:
            with around() as ask:
                result = train(*data, **given)
        finally:
            kept = {"returned": dict(_scalars(result, "")), "noted": ask() if callable(ask) else None}
            (place / "noted.json").write_text(json.dumps(kept))

    return call


def _scalars(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the numbers in a result by name, as text that any float survives."""
    if isinstance(value, (bool, int, float)):
        yield name, repr(float(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _scalars(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _scalars(inner, f"{name}[{index}]")
    elif hasattr(value, "item") and getattr(value, "size", None) is not None and hasattr(value, "dtype"):
        number = value.item() if _count(value) == 1 else None
        if isinstance(number, (bool, int, float)):
            yield name, repr(float(number))


def _count(value: Any) -> int:
    numel = getattr(value, "numel", None)
    return int(numel()) if callable(numel) else int(value.size)


def _numbers(kept: dict[str, Any]) -> dict[str, float]:
    return {name: float(text) for name, text in kept.get("returned", {}).items()}
