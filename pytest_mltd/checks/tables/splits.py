"""The umbrella over splits: every question that two tables (or several) can answer, asked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from pytest_mltd.checks.tables.frames import Frame, TableLike, are_splits, need_columns, open_table
from pytest_mltd.checks.tables.sql import SqlFrame
from pytest_mltd.core.asking import ask_all, asserting, check_allow, discover, info, umbrella
from pytest_mltd.core.findings import Diagnosis, Finding, diagnose_findings, not_asked

Names = str | Sequence[str]


@umbrella
def check_leakage(
    train: TableLike | Mapping[str, TableLike],
    test: TableLike | None = None,
    *,
    label: str | None = None,
    group: Names | None = None,
    time: str | None = None,
    key: Names | None = None,
    allow: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Ask whether anything leaks from one split into another, or from the label into a column.

    A mapping of splits in their order in time, ``{"train": …, "val": …, "test": …}``, asks every pair. What is not named
    (label, group, time, key) is not asked, and that is said.

    Args:
        train: any table, or a mapping of splits.
        test: any table; None with a mapping, or to ask of one table for a label leak only.
        label: the column that is predicted.
        group: the column (or columns) that must not be on both sides: a patient, a customer.
        time: the column by which the split was made, earlier rows for training.
        key: the column (or columns) that name a record.
        allow: ``{column or "family.fault" or "family.fault:column": reason}``.

    Raises:
        ValueError: a split is empty, shares no column with the first, or lacks a named column; the nearest name is given.
        TypeError: something is no table.

    Example::

        print(mltd.check_leakage("train.parquet", "test.parquet", label="target", group="patient"))
    """
    allow = check_allow(allow)
    frames = _open(train, test)
    named = {"label": label, "group": group, "time": time, "key": key}
    _refuse_empty(frames)
    _refuse_strangers(frames)
    _refuse_missing(named, frames)
    findings = list(_asked(frames, named, allow))
    about = "the splits are" if len(frames) > 1 else f"{frames[0].name} is"
    looked_at = ", ".join(f"{f.name} {f.rows:,} rows × {len(f.columns)} columns" for f in frames)
    return diagnose_findings(about, findings, looked_at=looked_at)


assert_no_leakage = asserting(check_leakage, "assert_no_leakage")


def _open(train: Any, test: Any) -> list[Frame]:
    if test is None and are_splits(train):
        return [open_table(data, str(name)) for name, data in train.items()]
    if test is not None and isinstance(train, Mapping) and are_splits(train) and not _is_dict_of_columns(train):
        raise TypeError("train: a mapping of splits was given, and a test table as well; put it into the mapping")
    first = open_table(train, "train")
    return [first] if test is None else [first, open_table(test, "test")]


def _is_dict_of_columns(data: Mapping[Any, Any]) -> bool:
    return all(isinstance(v, (list, tuple)) for v in data.values())


def _refuse_empty(frames: Sequence[Frame]) -> None:
    for frame in frames:
        if not frame.rows:
            columns = "no columns" if not frame.columns else "a header" if isinstance(frame, SqlFrame) else "columns"
            raise ValueError(f"{frame.name}: the table is empty: {columns} and no rows; nothing can be asked of it")


def _refuse_strangers(frames: Sequence[Frame]) -> None:
    first, *others = frames
    for frame in others:
        if not set(frame.columns) & set(first.columns):
            ours, theirs = (", ".join(map(repr, f.columns[:3])) for f in (first, frame))
            raise ValueError(
                f"{frame.name}: no column in common with {first.name}: it has {theirs}; {first.name} {ours}"
            )


def _refuse_missing(named: Mapping[str, Any], frames: Sequence[Frame]) -> None:
    """Refuse a misspelt name before the first question; the label may be missing from all splits but the first."""
    for argument, names in named.items():
        if names is not None:
            need_columns(argument, names, *(frames[:1] if argument == "label" else frames))


def _asked(frames: Sequence[Frame], named: Mapping[str, Any], allow: Mapping[str, str]) -> Iterator[Finding]:
    """Ask each question of each pair; the label only once for each later split, since train is the same."""
    given = {k: v for k, v in named.items() if v is not None}
    for function in discover("pytest_mltd.checks.tables", "splits"):
        needs = [a for a in named if a in _required(function)]
        lacking = [a for a in needs if a not in given]
        if lacking:
            yield _unasked(function, lacking, frames)
        elif "test" in _optional(function):
            yield from ask_all(
                [function], frames[0], _labelled(frames, named["label"]), allow=allow, **_taken(function, given)
            )
        elif len(frames) == 1:
            yield _of(function, not_asked("one table was given; this takes two"))
        else:
            for first, second in combinations(frames, 2):
                yield from ask_all([function], first, second, allow=allow, **_taken(function, given))


def _labelled(frames: Sequence[Frame], label: str | None) -> Frame | None:
    return next((f for f in frames[1:] if label in f.columns), None)


def _taken(function: Callable[..., Finding], given: Mapping[str, Any]) -> dict[str, Any]:
    import inspect

    return {k: v for k, v in given.items() if k in inspect.signature(function).parameters}


def _required(function: Callable[..., Finding]) -> list[str]:
    import inspect

    return [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]


def _optional(function: Callable[..., Finding]) -> list[str]:
    import inspect

    return [p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty]


def _unasked(function: Callable[..., Finding], lacking: Sequence[str], frames: Sequence[Frame]) -> Finding:
    argument = lacking[0]
    hint = ""
    if argument == "time":
        dates = [c for c in frames[0].columns if frames[0].kind(c) == "time" and all(c in f.columns for f in frames)]
        hint = f"; {dates[0]!r} holds dates, time={dates[0]!r} asks it" if dates else ""
    return _of(function, not_asked(f"no {argument} was named{hint}"))


def _of(function: Callable[..., Finding], finding: Finding) -> Finding:
    import dataclasses

    return dataclasses.replace(finding, id=info(function).id, rank=info(function).rank)
