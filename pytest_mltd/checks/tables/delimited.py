"""CSV files read strictly: a row that does not fit its header is an error with its line, never a row less.

An engine that may choose for itself what a file means finds some reading in which every line fits: it skips what comes before,
or takes another delimiter. So the delimiter is taken from the header and the lines after it, and nothing else is left open.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

# What pandas.read_csv takes for missing; a table read by path should not differ from one read by hand.
NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "null", "NULL", "None", "<NA>", "#N/A", "#NA", "-NaN")

_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 50  # lines that choose the delimiter; a guess


def csv_options(files: Sequence[Path], connection: Any) -> tuple[list[Path], dict[str, object]]:
    """Return the files that hold rows, and how DuckDB's ``read_csv`` is to read them.

    Raises:
        ValueError: all of them are empty, or they are not delimited alike.
    """
    heads = {file: _head(file, connection) for file in files}
    filled = [file for file, lines in heads.items() if _width(lines)]
    if not filled:
        raise ValueError(f"{files[0]} is empty: not even a header" if len(files) == 1 else "every file is empty")
    with_rows = [file for file in filled if sum(bool(line.strip()) for line in heads[file]) > 1] or filled[:1]
    found = {file: _delimiter(heads[file]) for file in with_rows}
    marks = {mark: file for file, mark in found.items() if mark is not None}
    if len(marks) > 1:
        shown = ", ".join(f"{file.name} by {mark!r}" for mark, file in marks.items())
        raise ValueError(f"the files are delimited differently: {shown}")
    blank = {_blank_lines(heads[file]) for file in with_rows}
    return with_rows, {
        "delim": next(iter(marks), ","),
        "skip": blank.pop() if len(blank) == 1 else 0,
        "header": True,
        "quote": '"',
        "escape": '"',
        "comment": "",
        "strict_mode": True,
        "null_padding": False,
        "ignore_errors": False,
        "sample_size": -1,
        "union_by_name": True,
        "nullstr": list(NULLS),
    }


def misfit(files: Iterable[Path], delimiter: str, connection: Any) -> str | None:
    """Return the first line that does not fit its file's header, in words; None if every line does."""
    for file in files:
        with _lines(file, connection) as lines:
            trouble = _misfit(lines, delimiter)
        if trouble is not None:
            return f"{file}, {trouble}"
    return None


def _misfit(lines: Iterable[str], delimiter: str) -> str | None:
    rows = csv.reader(_decoded(lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    width = begin = 0
    try:
        for row in rows:
            if row and not width:
                width = len(row)
            elif row and len(row) != width:
                fields = "field" if len(row) == 1 else "fields"
                return f"line {begin + 1}: {len(row)} {fields}, the header has {width}"
            begin = rows.line_num
    except UnicodeEncodeError:
        return f"line {rows.line_num + 1}: not UTF-8; save the file in that encoding, or read it yourself and pass the frame"
    except csv.Error as error:
        ended = "end of data" in str(error)
        return f"line {begin + 1}: {'a quote is opened and never closed' if ended else error}"
    return None


def _decoded(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        line.encode()  # what was no UTF-8 was kept aside by "surrogateescape", and fails here
        yield line


@contextmanager
def _lines(file: Path, connection: Any) -> Iterator[Iterable[str]]:
    """Open a file as lines of text."""
    if file.suffix.lower() == ".zst":  # only the engine reads it
        whole = f"read_csv('{str(file).replace(chr(39), chr(39) * 2)}', columns={{'line': 'VARCHAR'}}, header=false"
        text = connection.sql(f"SELECT line FROM {whole}, auto_detect=false, delim='\x01', quote='', escape='')")
        yield (f"{line or ''}\n" for (line,) in text.fetchall())
        return
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    with opened(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        yield lines


def _head(file: Path, connection: Any) -> list[str]:
    try:
        with _lines(file, connection) as lines:
            return list(islice(lines, _LOOKED_AT))
    except (OSError, EOFError) as error:
        raise ValueError(f"{file} cannot be read ({error})") from error


def _delimiter(lines: Sequence[str]) -> str | None:
    """Return what parts the header's columns: the mark by which most lines fit it. None if it has one column."""
    scored = [(*_fit(lines, mark), mark) for mark in _DELIMITERS]
    _, width, mark = max(scored, key=lambda s: s[:2])
    return mark if width > 1 else None


def _fit(lines: Sequence[str], mark: str) -> tuple[float, int]:
    """Return how well the lines fit the header under a delimiter (0 to 1, 0 for one column), and the header's width."""
    try:
        rows = [row for row in csv.reader(lines, delimiter=mark, skipinitialspace=True) if row]
    except csv.Error:  # a field of more than 128 KiB
        rows = [line.split(mark) for line in lines[:1]]
    if len(lines) == _LOOKED_AT:
        del rows[-1:]  # it may go on
    width = len(rows[0]) if rows else 0
    alike = sum(len(row) == width for row in rows[1:])
    return (alike / max(1, len(rows) - 1) if width > 1 else 0.0), width


def _width(lines: Sequence[str]) -> int:
    return max((len(line.strip()) for line in lines), default=0)


def _blank_lines(lines: Sequence[str]) -> int:
    return next((number for number, line in enumerate(lines) if line.strip()), 0)
