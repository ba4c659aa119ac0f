"""The one door for other tools' logs: a file or a folder is recognised by what it holds, and becomes a trace."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from pytest_mltd.core.traces import OptimizerInfo, Trace
from pytest_mltd.intake.events import is_event_file, read_events
from pytest_mltd.intake.folders import Found, in_folder
from pytest_mltd.intake.naming import Roles, roles
from pytest_mltd.intake.records import looks_like_log, read_records
from pytest_mltd.intake.series import Floats, Scalars, Steps

Curves = Mapping[str, tuple[Steps, Floats]]

_DENSE: Final = 1_000_000  # steps; the table of steps has a row for each, 77 bytes


def read(path: str | os.PathLike[str]) -> Trace:
    """Read the log of a run, whatever wrote it, as a trace of numbers.

    The training loss, the validation loss, learning rates and the gradient norm are recognised by their names (``train/loss``,
    ``eval_loss``, ``lr-AdamW``, ``grad_norm`` and the like); `Trace.notes` says which were taken. All others are logged
    numbers: ``trace.scalars("val/acc")``. Of a run that was resumed, what was written last counts.

    Args:
        path: a file, or the folder of one run: TensorBoard event files, ``metrics.csv``, other CSV or JSON lines with a column
            of steps or epochs, a JSON history, ``trainer_state.json``.

    Returns:
        A trace at level "scalars", with ``ended`` "logged": a log does not say how the run ended.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: it is no log, or a folder with the logs of several runs; the message names them.
    """
    place = Path(path)
    found = _found(place)
    into = Scalars()
    try:
        for file, prefix in found.files:
            read_events(file, into, prefix) if found.kind == "TensorBoard" else read_records(file, into)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"path: {str(place)!r} cannot be read as {_KINDS[found.kind]}: {error}") from error
    if not into.size:
        raise ValueError(
            f"path: {str(place)!r} holds no number of a run" + "".join(f"; {note}" for note in into.notes[:2])
        )
    return _trace(into, found)


def is_log(path: str | os.PathLike[str]) -> bool:
    """Whether a path holds logs of training runs: by its content, so that a table of data is none.

    A CSV is a log where a column counts steps or epochs upwards beside one that is a training or validation loss by its name.
    """
    place = Path(path)
    try:
        if place.is_dir():
            return bool(in_folder(place))
        return place.is_file() and _kind(place) != ""
    except OSError:
        return False


_KINDS: Final = {"TensorBoard": "a TensorBoard log", "records": "a log of records", "trainer": "a trainer's state"}


def _found(place: Path) -> Found:
    if not place.exists():
        raise FileNotFoundError(f"path: nothing at {str(place)!r}")
    if not place.is_dir() and not place.is_file():  # a pipe would be waited for
        raise ValueError(f"path: {str(place)!r} is neither a file nor a folder")
    if not place.is_dir():
        return Found(place, _kind(place) or "records", ((place, ""),))
    runs = in_folder(place)
    if not runs:
        raise ValueError(f"path: no log of a training run in the folder {str(place)!r}")
    if len(runs) > 1:
        shown = ", ".join(repr(str(run.place)) for run in runs[:5]) + (", …" if len(runs) > 5 else "")
        raise ValueError(f"path: {str(place)!r} holds the logs of {len(runs)} runs; say which: {shown}")
    return runs[0]


def _kind(file: Path) -> str:
    if is_event_file(file):
        return "TensorBoard"
    return "records" if looks_like_log(file) else ""


def _trace(log: Scalars, found: Found) -> Trace:
    curves: dict[str, tuple[Steps, Floats]] = {}
    restarts: dict[str, int] = {}
    for name, at, values, back in log.curves():
        curves[name], restarts[name] = (at, values), back
    taken = roles({name: steps.size for name, (steps, _) in curves.items()}, _broken(curves))
    notes = [_said(taken, curves), *log.notes]
    if back := restarts.get(taken.loss, 0):
        times = "1 time" if back == 1 else f"{back} times"
        notes.append(f"the steps of '{taken.loss}' go back {times}: what was written last counts")
    own = {taken.loss, taken.val, taken.grad_norm, *taken.lr} - {""}
    rest = {name: curve for name, curve in curves.items() if name not in own}
    streams = tuple(name for name in (taken.loss, taken.val) if name)
    steps = _steps(curves, taken)
    return Trace(
        steps=steps,
        losses=_column(curves.get(taken.loss), 0),
        val=_column(curves.get(taken.val), len(streams) - 1),
        logged=_logged(rest),
        names=tuple(rest),
        streams=streams,
        optimizers=(OptimizerInfo(name="an optimizer that the log does not name"),) if steps else (),
        provenance={"log": str(found.place), "kind": found.kind},
        level="scalars",
        ended="torn" if log.torn else "logged",
        notes=tuple(notes),
    )


def _broken(curves: Curves) -> list[str]:
    """Return the names whose numbers stop being finite for good, the first to do so first."""
    ends = {
        name: int(steps[~np.isfinite(values)][0])
        for name, (steps, values) in curves.items()
        if values.size and not np.isfinite(values[-3:]).any()
    }
    return sorted(ends, key=lambda name: ends[name])


def _steps(curves: Curves, taken: Roles) -> dict[str, Any]:
    """Return the table of steps: a row for each up to the last, those that nothing was logged at with no optimizer."""
    used = {name: curves[name] for name in (taken.loss, taken.grad_norm, *taken.lr) if name}
    length = max((int(at[-1]) + 1 for at, _ in used.values() if at.size), default=0)
    if not 0 < length <= _DENSE:
        return {}
    table: dict[str, Any] = {
        "optimizer": np.full(length, -1, np.int32),
        "stream": np.full(length, 0 if taken.loss else -1, np.int32),
        "backwards": np.zeros(length, np.int32),
        "nonfinite": np.zeros(length, np.int64),
    }
    for at, _ in used.values():
        table["optimizer"][at] = 0
    if taken.loss:
        table["loss"] = _spread(length, [curves[taken.loss]])
        table["backwards"][curves[taken.loss][0]] = 1
    if taken.grad_norm:
        at, norms = curves[taken.grad_norm]
        table["grad_norm"] = _spread(length, [(at, norms)])
        table["nonfinite"][at] = ~np.isfinite(norms)
    if taken.lr:
        table["lr"] = _spread(length, [curves[name] for name in taken.lr])
    return table


def _spread(length: int, curves: Iterable[tuple[Steps, Floats]]) -> Floats:
    """Return one value a step, the highest where several curves have one, NaN where none has."""
    column = np.full(length, np.nan)
    for at, values in curves:
        column[at] = np.fmax(column[at], values)
    return column


def _column(curve: tuple[Steps, Floats] | None, stream: int) -> dict[str, Any]:
    if curve is None:
        return {}
    return {"step": curve[0], "stream": np.full(curve[0].size, stream, np.int32), "value": curve[1]}


def _logged(curves: Curves) -> dict[str, Any]:
    if not curves:
        return {}
    return {
        "step": np.concatenate([at for at, _ in curves.values()]),
        "name": np.repeat(np.arange(len(curves), dtype=np.int32), [at.size for at, _ in curves.values()]),
        "value": np.concatenate([values for _, values in curves.values()]),
    }


def _said(taken: Roles, curves: Curves) -> str:
    """Say how the names were read, since nobody told us."""
    lr = ", ".join(repr(name) for name in taken.lr[:2]) + (", …" if len(taken.lr) > 2 else "")
    parts = {"loss": taken.loss, "validation loss": taken.val, "gradient norm": taken.grad_norm}
    said = [f"{what} {name!r}" for what, name in parts.items() if name] + ([f"learning rate {lr}"] if lr else [])
    read = (
        f"taken of {len(curves):,} logged {'name' if len(curves) == 1 else 'names'}: {', '.join(said)}"
        if said
        else f"{len(curves):,} names were logged"
    )
    return f"{read}; no loss is judged: {taken.why}" if taken.why else read
