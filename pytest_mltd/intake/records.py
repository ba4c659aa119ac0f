"""Logs of records: CSV, JSON lines, JSON histories, the ``trainer_state.json`` of Hugging Face."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

from pytest_mltd.intake.naming import is_loss, rank_of_step
from pytest_mltd.intake.series import MAX_STEP, Scalars

Record = dict[str, float]

_LONGEST_LINE: Final = 1 << 20  # characters; a record of a thousand names has some 30,000
_LARGEST_JSON: Final = 1 << 26  # bytes of a JSON document, which is read whole; a guess: half a million entries
_DEEPEST: Final = 5  # mappings in a mapping, as in {"train": {"loss": 0.1}}
_LOOKED_AT: Final = 200  # records that decide what a file is
_DECIDING: Final = 100_000  # records that decide what counts the steps


def looks_like_log(path: Path) -> bool:
    """Whether a file of records is a training log and no table: steps that go up, beside a loss that is a number."""
    try:
        if path.suffix.lower() == ".json":
            return _is_history(path)
        if not _may_be_log(path):
            return False
        return _is_training(list(itertools.islice(_lines(path, Scalars()), _LOOKED_AT)))
    except (OSError, ValueError, csv.Error):
        return False


def read_records(path: Path, into: Scalars) -> None:
    """Append the numbers of a file of records.

    Raises:
        ValueError: it holds none, or is not what its name says.
    """
    records = _document(path) if path.suffix.lower() == ".json" else _lines(path, into)
    _add(records, into)


def _add(records: Iterable[Record], into: Scalars) -> None:
    """Append records; the step is the column that counts them best, or their number where none does."""
    records = iter(records)
    kept = list(itertools.islice(records, _DECIDING))
    counter = _counter(kept)
    if not counter:
        into.notes.append("no column counts the steps: the rows were counted")
    begins_again = any(_begins_again(kept, counter, epoch) for epoch in ("epoch", "Epoch") if epoch != counter)
    if begins_again:
        into.notes.append(f"'{counter}' begins again in each epoch: the rows were counted")
    for row, record in enumerate(itertools.chain(kept, records)):
        at = row if begins_again or not counter else record.get(counter, math.nan)
        if not math.isfinite(at) or not 0 <= at <= MAX_STEP:
            continue
        for name, value in record.items():
            if name != counter:
                into.add(name, int(at), value)


def _counter(records: list[Record]) -> str:
    """Return the name that counts the steps: a whole number in every record that has a loss, or in most where none has."""
    names = dict.fromkeys(name for record in records[:_LOOKED_AT] for name in record)
    known = sorted((rank, name) for name in names if (rank := rank_of_step(name)) is not None)
    for _, name in known:
        with_loss = [r for r in records if any(map(is_loss, r))]
        told = [r.get(name) for r in with_loss or records]
        counted = sum(at is not None and at.is_integer() for at in told)
        if counted and counted >= len(told) * (1.0 if with_loss else 0.5):
            return name
    return ""


def _begins_again(records: list[Record], counter: str, epoch: str) -> bool:
    """Whether the steps go back just where an epoch begins: they count its batches. A restart goes back in both."""
    rows = [(r[counter], r[epoch]) for r in records if counter in r and epoch in r]
    pairs = list(itertools.pairwise(rows))
    back = [new[1] > old[1] for old, new in pairs if new[0] < old[0]]
    return bool(back) and all(back)


def _is_training(records: list[Record]) -> bool:
    names = {name for record in records for name in record}
    steps = [n for n in names if rank_of_step(n) is not None]
    if not any(is_loss(n) for n in names) or not steps:
        return False
    for name in steps:
        told = [r[name] for r in records if name in r]
        back = sum(new < old for old, new in itertools.pairwise(told))
        if len(told) > 1 and all(at >= 0 for at in told) and back <= 0.2 * len(told) and told[0] < max(told):
            return True
    return False


def _may_be_log(path: Path) -> bool:
    """Whether the first line is a JSON object, or a header that names steps and a loss; a wide table is read no further."""
    with open(path, "rb") as raw:
        head = raw.read(4096)
    if b"\0" in head and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        return False
    with _opened(path) as file:
        first = file.readline(_LONGEST_LINE)
    names = _cells(first)
    return first.lstrip().startswith("{") or (
        any(map(is_loss, names)) and any(rank_of_step(name) is not None for name in names)
    )


def _is_history(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    return any(word in head for word in (b"log_history", b"loss")) and _is_training(
        list(itertools.islice(_document(path), _LOOKED_AT))
    )


def _lines(path: Path, into: Scalars) -> Iterator[Record]:
    """Yield the numbers of each line of a CSV file or of a file of JSON objects."""
    with _opened(path) as file:
        first = next((line for line in iter(lambda: file.readline(_LONGEST_LINE), "") if line.strip()), "")
        if not first.strip():
            raise ValueError("it is empty")
        lines = _whole_lines(file)
        if first.lstrip().startswith("{"):
            yield from _json_lines(itertools.chain([first], lines), into)
        else:
            yield from _csv_rows(first, lines, into)


def _opened(path: Path) -> TextIO:
    with open(path, "rb") as file:
        head = file.read(4)
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    return open(path, encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="")


def _whole_lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) >= _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE:,} characters")
        yield line
        if not line.endswith(("\n", "\r")):
            return


def _json_lines(lines: Iterable[str], into: Scalars) -> Iterator[Record]:
    broken = 0
    for line in lines:
        try:
            entry = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            broken += 1
            into.torn = not line.endswith("\n")
            continue
        if isinstance(entry, dict):
            yield dict(_numbers(entry))
    if broken:
        into.notes.append(f"{broken:,} {'line that is' if broken == 1 else 'lines that are'} no JSON left out")


def _csv_rows(header: str, lines: Iterable[str], into: Scalars) -> Iterator[Record]:
    delimiter, names = _delimiter(header), _cells(header)
    comma = delimiter == ";"  # where cells are parted so, the decimal mark may be a comma
    rows = csv.reader(lines, delimiter=delimiter)
    if len(set(names)) < len(names):
        raise ValueError("two columns have one name")
    odd = 0
    for row in rows:
        odd += bool(row) and len(row) != len(names)
        cells = (
            (name, _number(cell.replace(",", ".") if comma else cell)) for name, cell in zip(names, row, strict=False)
        )
        yield {name: value for name, value in cells if value is not None}
    if odd:
        into.notes.append(f"{odd:,} {'row has' if odd == 1 else 'rows have'} another number of cells than the header")


def _cells(header: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header], delimiter=_delimiter(header)), [])]


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _document(path: Path) -> Iterator[Record]:
    """Yield the records of a JSON document: a list of them, ``log_history``, or a mapping of names to lists (Keras).

    Raises:
        ValueError: it is none of these, or no JSON.
    """
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"a JSON document of more than {_LARGEST_JSON:,} bytes")
    with _opened(path) as file:
        text = file.read()
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        yield from _json_lines(io.StringIO(text), Scalars())  # JSON lines under the other name
        return
    if isinstance(found, dict) and isinstance(found.get("log_history"), list):
        found = found["log_history"]
    if isinstance(found, list):
        yield from (dict(_numbers(entry)) for entry in found if isinstance(entry, dict))
    elif isinstance(found, dict) and (columns := {str(k): v for k, v in found.items() if isinstance(v, list)}):
        for row in range(max(map(len, columns.values()))):
            cells = {name: _number(column[row]) for name, column in columns.items() if row < len(column)}
            yield {"step": float(row), **{name: value for name, value in cells.items() if value is not None}}
    else:
        raise ValueError("it holds no list of records")


def _numbers(entry: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _numbers(value, f"{prefix}{name}/", depth + 1)
        elif (number := _number(value)) is not None:
            yield prefix + name, number


def _number(value: object) -> float | None:
    """Return a number, also one in words (``"nan"``, ``"1e-3"``, ``"Infinity"``), or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and (len(value) > 40 or "_" in value):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf
