"""Which runs a folder holds the logs of: the layouts of SummaryWriter, Keras, Lightning and the Hugging Face Trainer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_mltd.intake.events import first_time, is_event_file
from pytest_mltd.intake.records import looks_like_log

_DEEP: Final = 4  # folders below the one given: lightning_logs/version_0, runs/Nov24/…; a guess
_MANY: Final = 2_000  # entries that are looked at in all; a folder of a million images is no log
_SPLITS: Final = ({"train", "validation"}, {"train", "val"}, {"train", "test"}, {"train", "eval"}, {"train", "valid"})
_HEAVY: Final = 1 << 30  # bytes of a file that is not looked into while searching


@dataclass(frozen=True, slots=True)
class Found:
    """One run's log: where it lies, its kind, and its files with what stands before their names."""

    place: Path
    kind: str
    files: tuple[tuple[Path, str], ...]


def in_folder(folder: Path) -> list[Found]:
    """Return the runs whose logs lie in a folder, by name: the folder's own, else those of the folders in it."""
    return _runs(folder, _DEEP, iter(range(_MANY)))


def _runs(folder: Path, deep: int, budget: Iterator[int]) -> list[Found]:
    entries = _entries(folder, budget)
    files, folders = [e for e in entries if e.is_file()], [e for e in entries if e.is_dir()]
    if own := _own(folder, files, folders, budget):
        return own
    if deep == 0:
        return []
    found = {inner: _runs(inner, deep - 1, budget) for inner in folders}
    if (split := _split_run(folder, found)) is not None:
        return [split]
    return [run for inner in folders for run in found[inner]]


def _entries(folder: Path, budget: Iterator[int]) -> list[Path]:
    try:
        with os.scandir(folder) as scanned:
            taken = [Path(e.path) for e, _ in zip(scanned, budget, strict=False) if not e.name.startswith(".")]
    except OSError:
        return []
    return sorted(e for e in taken if not e.is_symlink() or e.is_file())


def _own(folder: Path, files: list[Path], folders: list[Path], budget: Iterator[int]) -> list[Found]:
    at_end = folder / "trainer_state.json"
    if state := at_end if at_end in files else _newest_checkpoint(folders):
        return [Found(folder, "trainer", ((state, ""),))]
    events = [f for f in files if "tfevents" in f.name and is_event_file(f)]
    if events:
        return [Found(folder, "TensorBoard", (*_in_order(events), *_of_add_scalars(folders, budget)))]
    logs = [f for f in files if f.suffix.lower() in _RECORDS and f.stat().st_size <= _HEAVY and looks_like_log(f)]
    return [Found(f, "records", ((f, ""),)) for f in logs]


_RECORDS: Final = {".csv", ".tsv", ".jsonl", ".json", ".ndjson"}


def _in_order(events: list[Path], prefix: str = "") -> Iterator[tuple[Path, str]]:
    """Yield event files as they were begun: a resumed run goes on in a new one."""
    for file in sorted(events, key=lambda f: (first_time(f), f.name)):
        yield file, prefix


def _of_add_scalars(folders: list[Path], budget: Iterator[int]) -> Iterator[tuple[Path, str]]:
    """Yield the files that ``add_scalars("loss", {"train": …})`` puts into folders of their own, as ``loss_train``."""
    for folder in folders:
        inner = [f for f in _entries(folder, budget) if f.is_file() and "tfevents" in f.name and is_event_file(f)]
        if inner and re.search(r"[a-zA-Z]", folder.name):  # add_hparams names its folder after the time of day
            yield from _in_order(inner, folder.name + "/")


def _newest_checkpoint(folders: list[Path]) -> Path | None:
    """Return the state in ``checkpoint-1500``, the highest there is: each holds the history of the whole run."""
    numbered = [(int(m[1]), f) for f in folders if (m := re.fullmatch(r"checkpoint-(\d{1,12})", f.name))]
    states = [(n, f / "trainer_state.json") for n, f in numbered if (f / "trainer_state.json").is_file()]
    return max(states)[1] if states else None


def _split_run(folder: Path, found: dict[Path, list[Found]]) -> Found | None:
    """Return the one run of Keras's layout: folders ``train`` and ``validation`` with event files, or None."""
    held = {inner.name: runs for inner, runs in found.items() if runs}
    if set(held) not in _SPLITS or any(len(r) != 1 or r[0].kind != "TensorBoard" for r in held.values()):
        return None
    files = [(file, f"{name}/{prefix}") for name, (run,) in held.items() for file, prefix in run.files]
    return Found(folder, "TensorBoard", tuple(files))
