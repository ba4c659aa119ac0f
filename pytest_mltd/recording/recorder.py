"""Record a PyTorch training run without changing its code.

::

    with mltd.record() as run:
        train()
    print(run.trace.steps["loss"])
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pytest_mltd.core.extras import need
from pytest_mltd.core.traces import MAGIC, Trace
from pytest_mltd.core.trials import current_condition, note_trace
from pytest_mltd.recording import sites as _sites  # noqa: F401 - early: it keeps the folder that the program began in
from pytest_mltd.recording.levels import Level, level_named
from pytest_mltd.recording.mishaps import described

if TYPE_CHECKING:
    import torch

    from pytest_mltd.recording.watching import Watcher


class Cut(BaseException):
    """Ends a program after its last wanted step. Not an `Exception`, so that a program's own handlers let it through."""


class Recording:
    """A recording, alive while its block runs; afterwards it has the trace.

    ``roots`` are the last eight root modules that were seen, held so that they outlive the function that made them; ``batch``
    is a copy of the first inputs of one, as ``(args, kwargs)``; what is put into ``hold`` lives as long as the recording.
    """

    def __init__(self, watcher: Watcher | None, note: str = "") -> None:
        self._watcher = watcher
        self._trace = Trace(notes=(note,)) if note else Trace()
        self.hold: list[Any] = []
        self.closed = watcher is None
        self._process = os.getpid()

    @property
    def _elsewhere(self) -> bool:
        """Whether this is a forked child, to whom the file does not belong: it shares even the place to write at."""
        return os.getpid() != self._process

    @property
    def trace(self) -> Trace:
        """The trace; inside the block a look at what there is so far, with ``ended`` "running"."""
        if self.closed or self._watcher is None or self._elsewhere:
            return self._trace
        return _look(self._watcher)

    @property
    def roots(self) -> list[torch.nn.Module]:
        """The root modules, the newest last."""
        return list(self._watcher.names.roots) if self._watcher is not None else []

    @property
    def batch(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A copy of the first training inputs of a root module, None when none was seen."""
        return self._watcher.passes.batch if self._watcher is not None else None

    @property
    def batch_model(self) -> torch.nn.Module | None:
        """The root module that this batch went into."""
        return self._watcher.passes.batch_model if self._watcher is not None else None

    @property
    def forward_seconds(self) -> float:
        """How long the quickest of the first calls of that model took, 0 where none was timed."""
        return self._watcher.passes.seconds if self._watcher is not None else 0.0

    @property
    def targets(self) -> tuple[str, torch.Tensor] | None:
        """The first targets: the loss function they were given to, with "+" where it was but a part of the loss, and a copy."""
        return self._watcher.walks.first_targets if self._watcher is not None else None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a file, whole or not at all.

        Raises:
            OSError: the folder is missing or cannot be written.
        """
        return self.trace.save(path)

    def log(self, split: str, **scalars: float) -> None:
        """Keep numbers that the program knows itself, as ``run.log("val", auc=0.91)``: they are named ``val/auc``.

        Raises:
            TypeError: a value is no number.
        """
        for name, value in scalars.items():
            try:
                float(value)
            except (TypeError, ValueError) as error:
                raise TypeError(f"{name}: a number is needed, not {value!r}") from error
        if self._watcher is not None and not self.closed:
            self._watcher.log(split, {name: float(value) for name, value in scalars.items()})

    def __repr__(self) -> str:
        state = f"ended: {self._trace.ended}" if self.closed else "running"
        steps = self._trace.n_steps if self.closed or self._watcher is None else self._watcher.step
        return f"<Recording of {steps} steps, {state}>"


@contextlib.contextmanager
def record(
    *,
    steps: int | None = None,
    level: str = "default",
    path: str | os.PathLike[str] | None = None,
    stop_on: Literal["nonfinite"] | None = None,
) -> Iterator[Recording]:
    """Record the training that happens in the block, on the thread that enters it.

    The program ends in the same weights, losses and random states as without it. An error inside the recorder becomes a note
    in the trace. ``MLTD_OFF=1`` in the environment records nothing.

    Args:
        steps: stop to record after so many steps of the busiest optimizer; the program goes on. None: what the trial in
            force says, else no end.
        level: ``losses``, ``default`` or ``everything``; see `pytest_mltd.recording.levels`.
        path: a file to write to while the program runs, so that a killed job leaves it. Another trace there is replaced.
        stop_on: "nonfinite" ends the block after the first step that used a loss or gradients that are not finite; the trace
            says so, and the program goes on after the block. A program that leaves such a step out is not ended.

    Raises:
        MissingExtra: torch is not installed.
        ValueError: steps is below 1, the level or ``stop_on`` is unknown, or another kind of file is at path.
        OSError: the file cannot be written.

    Example:
        >>> import torch
        >>> w = torch.nn.Linear(2, 1)
        >>> with record() as run:
        ...     optimizer = torch.optim.SGD(w.parameters(), lr=0.1)
        ...     w(torch.ones(4, 2)).mean().backward()
        ...     optimizer.step()
        >>> run.trace.n_steps
        1
    """
    if steps is not None and (not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps: at least 1 is needed, not {steps!r}")
    if stop_on not in (None, "nonfinite"):
        raise ValueError(f"stop_on: 'nonfinite' or None is needed, not {stop_on!r}")
    wanted = level_named(level)
    if os.environ.get("MLTD_OFF", "") not in ("", "0"):
        yield Recording(None, "MLTD_OFF is set: nothing was recorded")
        return
    need("torch", "recording a run")
    condition = current_condition()
    with _opened(path) as file:
        yield from _recorded(file, wanted, steps or condition.steps, condition.exact, stop_on is not None)


@contextlib.contextmanager
def cut_after(steps: int) -> Iterator[None]:
    """End the block after so many steps of the busiest optimizer: `Cut` is raised out of the last one, and passes through.

    Raises:
        ValueError: steps is below 1.
        Cut: when the last step was done.
    """
    if steps < 1:
        raise ValueError(f"steps: at least 1 is needed, not {steps!r}")
    from pytest_mltd.recording import hooks
    from pytest_mltd.recording.cutting import Cutter

    cutter = Cutter(steps, Cut)
    try:
        hooks.join(cutter)
        yield
    finally:
        hooks.leave(cutter)


def _recorded(file: BinaryIO, level: Level, steps: int | None, exact: bool, stop: bool) -> Iterator[Recording]:
    from pytest_mltd.recording import environment, hooks
    from pytest_mltd.recording.sentinels import Stopper
    from pytest_mltd.recording.watching import Watcher

    full: list[float] = []

    def on_full() -> None:
        if not full:
            full.append(time.perf_counter())
            hooks.leave(watcher, soon=True)

    watcher = Watcher(file, level, steps, exact, on_full)
    watcher.spool.head(level=level.name, settings=environment.settings(), provenance=environment.provenance())
    recording = Recording(watcher)
    stopper = Stopper(Cut)
    start = time.perf_counter()
    ended = "completed"
    try:
        hooks.join(watcher)
        if stop:
            hooks.join(stopper)
        yield recording
    except Cut as end:
        ended = "cut"
        if end is not stopper.raised:
            raise
        watcher.spool.notes.append(str(end))
    except KeyboardInterrupt:
        ended = "interrupted"
        raise
    except BaseException as error:
        ended = f"raised {described(error)}"
        raise
    finally:
        hooks.leave(stopper)
        hooks.leave(watcher)
        if not recording._elsewhere:
            spent = (full[0] if full else time.perf_counter()) - start
            recording._trace = _close(watcher, "full" if full else ended, spent)
            note_trace(recording._trace)
        recording.closed = True


def _close(watcher: Watcher, ended: str, seconds: float) -> Trace:
    from pytest_mltd.recording import environment

    watcher.finish()
    try:
        cost = min(watcher.spent / seconds, 1.0) if seconds > 0 else None
        if "writing" not in watcher.off:
            watcher.flush()
            watcher.spool.head(ended=ended, settings=environment.settings(), cost=cost, seconds=seconds)
            return watcher.spool.read()
        trace = watcher.spool.read()
        return dataclasses.replace(
            trace, ended=ended, cost=cost, seconds=seconds, notes=(*trace.notes, *watcher.spool.notes)
        )
    except Exception as error:  # a full disk must not cost the user's run its result
        watcher.spool.drop()
        note = f"the trace could not be written: {described(error)}"
        return Trace(ended=ended, notes=(*watcher.spool.notes, note), level=watcher.level.name)


def _look(watcher: Watcher) -> Trace:
    """Read what there is so far; not through the file's last word, which only the end may write."""
    watcher.flush()
    trace = watcher.spool.read()
    return dataclasses.replace(trace, ended="running", notes=tuple(watcher.spool.notes))


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str] | None) -> Iterator[BinaryIO]:
    """Open the file to record into: a nameless temporary one, or the path given, where only another trace is replaced."""
    if path is None:
        with tempfile.TemporaryFile(prefix="mltd-") as nameless:
            yield cast(BinaryIO, nameless)
        return
    target = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError), open(target, "rb") as there:
            first = there.read(len(MAGIC))
            if first and not first.startswith(MAGIC[:18]):
                raise ValueError(f"path: {str(target)!r} is there and is no trace; it is not overwritten")
        file = open(target, "w+b")  # noqa: SIM115 - closed below, the error is reported under the argument's name
    except OSError as error:
        raise type(error)(f"path: cannot write {str(target)!r} ({error.strerror})") from error
    with file:
        yield file
