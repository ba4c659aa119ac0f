"""Rows on their way into the file: short lists in memory, written as columns, so that memory stays flat over a long run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np

from pytest_mltd.core.traces import LISTS, TABLES, Fact, SeedCall, Trace, TraceWriter, read_trace
from pytest_mltd.recording.naming import Names

# A wide cell is None (not taken) or a pair: the indexes along the table's second axis, and a value for each.
Wide = tuple[Sequence[int], Sequence[Any]] | None

_MAX_CELLS: Final = 100_000  # numbers waiting in memory, about 5 MB
_MAX_SECONDS: Final = 1.0  # what a killed job may lose


class Spool:
    """The rows of each table since the last flush, and the lists whose items rows point to.

    ``rows[table]`` takes one tuple a row, its values in the order of the table's columns. A value may be a number that is
    still on its way from a device (anything with ``__float__``); ``settle`` is called before such rows are written.
    """

    def __init__(self, file: BinaryIO, names: Names) -> None:
        self.file = file
        self.names = names
        self.rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in TABLES}
        self.streams: list[str] = []
        self.texts: list[str] = []  # the trace's `names`
        self.sites: list[str] = []
        self.seeds: list[SeedCall] = []
        self.facts: list[Fact] = []
        self.notes: list[str] = []
        self.cells = 0
        self._text_at: dict[str, int] = {}
        self._written = dict.fromkeys(LISTS, 0)
        self._writer = TraceWriter(file)
        self._last = time.perf_counter()

    def text(self, text: str) -> int:
        """Return the index of a text in the trace's ``names``."""
        found = self._text_at.get(text)
        if found is None:
            found = self._text_at[text] = len(self.texts)
            self.texts.append(text)
        return found

    @property
    def due(self) -> bool:
        """Whether enough waits, or waits for long enough, to be written."""
        return self.cells > _MAX_CELLS or time.perf_counter() - self._last > _MAX_SECONDS

    def head(self, **head: Any) -> None:
        """Write what is known of the run as a whole."""
        self._writer.end(**head)

    def marks(self) -> dict[str, int]:
        """Return how many rows of each table wait now."""
        return {table: len(rows) for table, rows in self.rows.items()}

    def flush(self, upto: Mapping[str, int] | None = None) -> None:
        """Write the rows up to these marks, or all that wait."""
        self._flush_lists()
        noted = len(self.notes)
        for table, rows in self.rows.items():
            count = len(rows) if upto is None else upto[table]
            if count:
                self.rows[table] = rows[count:]
                self._write(table, rows[:count])
        if len(self.notes) > noted:
            self._flush_lists()
        self.cells = 0
        self._last = time.perf_counter()

    def drop(self) -> None:
        """Forget the rows that wait."""
        for rows in self.rows.values():
            rows.clear()
        self.cells = 0

    def read(self) -> Trace:
        """Read back all that was written."""
        here = self.file.tell()
        try:
            return read_trace(self.file)
        finally:
            self.file.seek(here)

    def _write(self, table: str, rows: list[tuple[Any, ...]]) -> None:
        try:
            columns = self._columns(table, rows)
        except (
            TypeError,
            ValueError,
            IndexError,
            OverflowError,
        ) as error:  # a defect of ours must not cost the other tables
            note = f"rows of {table!r} were lost: {type(error).__name__}"
            if note not in self.notes:
                self.notes.append(note)
            return
        self._writer.rows(table, columns)

    def _flush_lists(self) -> None:
        for name, items in self._lists().items():
            known = self._written[name]
            for changed, index in sorted(self.names.changed):
                if changed == name and index < known:
                    self._writer.replace(name, index, items[index])
            self._writer.extend(name, items[known:])
            self._written[name] = len(items)
        self.names.changed.clear()

    def _lists(self) -> dict[str, list[Any]]:
        names = self.names
        return {
            "parameters": names.parameters,
            "modules": names.modules,
            "optimizers": names.optimizers,
            "streams": self.streams,
            "names": self.texts,
            "sites": self.sites,
            "seeds": self.seeds,
            "facts": self.facts,
            "notes": self.notes,
        }

    def _columns(self, table: str, rows: list[tuple[Any, ...]]) -> dict[str, Any]:
        columns: dict[str, Any] = {}
        for (column, (dtype, width, fill)), values in zip(TABLES[table].items(), zip(*rows, strict=True), strict=True):
            if width:
                columns[column] = _matrix(values, dtype, len(getattr(self.names, width)), fill)
            else:
                columns[column] = np.array(values, dtype=dtype)
        return columns


def _matrix(cells: tuple[Wide, ...], dtype: str, width: int, fill: float) -> np.ndarray[Any, Any]:
    matrix = np.full((len(cells), width), fill, dtype=dtype)
    with np.errstate(over="ignore"):  # a norm above the range of float32 is kept as inf
        for row, cell in zip(matrix, cells, strict=True):
            if cell is not None:
                row[cell[0]] = cell[1]
    return matrix
