"""The one door to tables: whatever a person has becomes a `Frame`, and only here and in `sql` is an engine named.

pandas, polars (eager and lazy), Arrow, DuckDB relations, paths of Parquet and CSV files or folders of them, a dictionary of
columns, a list of dictionaries, a two-dimensional array. The base install reads the last three; the rest brings its own engine.
"""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from pytest_mltd.checks.tables.columns import (
    Array,
    Column,
    Kind,
    column_of,
    number_column,
    text_column,
)
from pytest_mltd.checks.tables.sql import SqlFrame, path_frame, relation_frame

TableLike: TypeAlias = Any
"""A table as a person has it; `open_table` says what is taken."""


class Frame(Protocol):
    """A table with a name, opened: what the checks read."""

    name: str
    columns: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The number of rows."""

    def kind(self, column: str) -> Kind:
        """Return what a column holds."""

    def column(self, name: str) -> Column:
        """Return one column, whole."""


class ArrayFrame:
    """A table of columns already at hand as NumPy arrays."""

    def __init__(self, name: str, columns: Mapping[str, Column], rows: int | None = None) -> None:
        self.name = name
        self._columns = dict(columns)
        self.columns = tuple(self._columns)
        self.rows = rows if rows is not None else len(next(iter(columns.values()), ()))

    def kind(self, column: str) -> Kind:
        """Return what a column holds."""
        return self._columns[column].kind

    def column(self, name: str) -> Column:
        """Return one column, whole."""
        return self._columns[name]


class EagerFrame:
    """A pandas, polars or Arrow table in memory, read column by column through narwhals."""

    def __init__(self, name: str, native: Any) -> None:
        import narwhals as nw

        self.name = name
        self._frame: Any = nw.from_native(native, eager_only=True)
        self.columns: tuple[str, ...] = tuple(self._frame.columns)
        self.rows: int = self._frame.shape[0]
        self.engine = str(self._frame.implementation.name).lower()
        self._read: dict[str, Column] = {}

    @property
    def native(self) -> Any:
        """The engine's own frame."""
        return self._frame.to_native()

    def kind(self, column: str) -> Kind:
        """Return what a column holds."""
        return _schema_kind(self._frame.schema[column]) or self.column(column).kind

    def column(self, name: str) -> Column:
        """Return one column, whole."""
        if _schema_kind(self._frame.schema[name]) is not None:
            return _from_series(name, self._frame[name])
        if name not in self._read:  # objects are looked at one by one, and more than once
            self._read[name] = _from_series(name, self._frame[name])
        return self._read[name]

    def at(self, positions: Array, columns: Sequence[str]) -> ArrayFrame:
        """Return some rows and columns as arrays."""
        taken = self._frame.select(*columns)[positions.tolist(), :]
        return ArrayFrame(self.name, {n: _from_series(n, taken[n]) for n in columns}, len(positions))

    def in_polars(self, columns: Sequence[str]) -> Any:
        """Return some columns as a polars frame, whose hash and joins are the fastest at hand; None where that fails."""
        if importlib.util.find_spec("polars") is None:
            return None
        import polars as pl

        native = self._frame.select(*columns).to_native()
        try:
            if self.engine != "polars":
                native = pl.from_pandas(native) if self.engine == "pandas" else pl.from_arrow(native)
        except (
            Exception
        ):  # mixed objects are no Arrow type, each engine says so with an error of its own; or no pyarrow
            return None
        return None if pl.Object in native.dtypes else native

    def counted(self, columns: Sequence[str]) -> tuple[list[Column], Array] | None:
        """Return the distinct combinations of some columns, none missing, and how many rows have each; or None."""
        native = self.in_polars(columns)
        if native is None:
            return None
        import narwhals as nw
        import polars as pl

        floats = [c for c in native.columns if native.schema[c].is_float()]
        counted = (
            native.with_columns(pl.col(floats).fill_nan(None)).drop_nulls().group_by(list(columns)).len("mltd rows")
        )
        series = nw.from_native(counted, eager_only=True)
        return [_from_series(c, series[c]) for c in columns], np.asarray(counted["mltd rows"].to_numpy(), np.int64)


def open_table(data: TableLike, name: str) -> Frame:
    """Return any table as a `Frame`. ``name`` is the argument's name, for messages; a `Frame` keeps its own.

    Raises:
        TypeError: it is no table (a generator, a single column, a number).
        ValueError: a path leads nowhere, or columns differ in length.
        MissingExtra: a path needs DuckDB and it is not installed.
    """
    if isinstance(data, (ArrayFrame, EagerFrame, SqlFrame)):
        return data
    if isinstance(data, (str, os.PathLike)):
        return path_frame(name, Path(data).expanduser())
    if inspect.isgenerator(data) or (hasattr(data, "__next__") and not hasattr(data, "collect")):
        raise TypeError(f"{name}: a generator can be read only once; pass a frame or list(...) of it")
    if _is_of("duckdb", data) and hasattr(data, "fetchnumpy"):
        return relation_frame(name, data)
    if isinstance(data, Mapping):
        return _from_mapping(name, data)
    if isinstance(data, np.ndarray) or (hasattr(data, "__array__") and _is_of("torch", data)):
        return _from_array(name, np.asarray(data))
    if isinstance(data, Sequence) and not isinstance(data, (bytes, bytearray)):
        return _from_records(name, data)
    return _from_engine(name, data)


def are_splits(data: Any) -> bool:
    """Tell a mapping of splits, each a table, from a mapping of columns."""
    return isinstance(data, Mapping) and bool(data) and all(_is_table(v) for v in data.values())


def need_columns(argument: str, names: str | Sequence[str], *frames: Frame) -> tuple[str, ...]:
    """Return the columns that an argument names.

    Raises:
        ValueError: one of the frames has no such column; the nearest name is given.
        TypeError: it is no name.
    """
    wanted = (names,) if isinstance(names, (str, int)) else tuple(names)
    if not wanted or not all(isinstance(n, (str, int)) for n in wanted):
        raise TypeError(f"{argument}: the name of a column is needed, not {names!r}")
    wanted = tuple(str(n) for n in wanted)
    for frame in frames:
        for column in wanted:
            if column not in frame.columns:
                raise ValueError(f"{argument}: no column {column!r} in {frame.name}{_nearest(column, frame.columns)}")
    return wanted


def sample(frame: Frame, columns: Sequence[str], limit: int) -> ArrayFrame:
    """Return at most about ``limit`` rows of some columns as arrays, chosen by a hash of the row's content.

    The choice depends on what is in the rows, not on their order, so that a table shuffled gives the same rows.
    """
    if isinstance(frame, SqlFrame):
        every = [None] * len(columns)
        tail = "" if frame.rows <= limit else f"WHERE {frame.hashed(columns, every)} % {frame.rows} < {limit}"
        return ArrayFrame(frame.name, frame.fetch(columns, tail))
    if frame.rows <= limit:
        return ArrayFrame(frame.name, {c: frame.column(c) for c in columns}, frame.rows)
    in_polars = frame.in_polars(columns) if isinstance(frame, EagerFrame) else None
    keys = row_keys([frame.column(c) for c in columns]) if in_polars is None else in_polars.hash_rows().to_numpy()
    return rows_at(frame, np.flatnonzero(keys % np.uint64(frame.rows) < limit), columns)


def rows_at(frame: Frame, positions: Array, columns: Sequence[str]) -> ArrayFrame:
    """Return some rows and columns as arrays."""
    if isinstance(frame, EagerFrame):
        return frame.at(positions, columns)
    return ArrayFrame(frame.name, {c: frame.column(c).at(positions) for c in columns}, len(positions))


def row_keys(columns: Sequence[Column], as_: Sequence[str] = ()) -> Array:
    """Return 64 bits for each row, equal for equal rows. ``as_`` says for each column how it is compared."""
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column, how in zip(columns, as_ or ["own"] * len(columns), strict=True):
        # The finaliser of splitmix64 (Steele, Lea and Flood 2014), one round for each column.
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= column.keys(text=how == "text", real=how == "real")
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
    return mixed


def _from_engine(name: str, data: Any) -> Frame:
    import narwhals as nw

    if (
        hasattr(data, "to_frame")
        and (_is_of("pandas", data) or _is_of("polars", data))
        and not hasattr(data, "columns")
    ):
        raise TypeError(f"{name}: a single column ({type(data).__name__}) is no table; pass a frame")
    if _is_of("pandas", data):
        data = data.set_axis(_distinct([str(c) for c in data.columns]), axis=1)
    elif _is_of("pyarrow", data) and hasattr(data, "schema"):
        import pyarrow as pa

        if isinstance(data, pa.RecordBatch):
            data = pa.Table.from_batches([data])
        data = data.rename_columns(_distinct(data.column_names))
    try:
        frame: Any = nw.from_native(data)
    except TypeError:
        raise TypeError(
            f"{name}: {type(data).__name__} is no table; taken are pandas, polars and Arrow frames, DuckDB relations, "
            "paths of Parquet or CSV files, dictionaries of columns, lists of dictionaries and 2-D arrays"
        ) from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return EagerFrame(name, frame.to_native())


def _from_mapping(name: str, data: Mapping[Any, Any]) -> ArrayFrame:
    columns: dict[str, Column] = {}
    for key, values in data.items():
        if isinstance(values, (str, bytes)) or not (hasattr(values, "__len__") or hasattr(values, "__array__")):
            raise TypeError(f"{name}: column {key!r} is {type(values).__name__}, a sequence of values is needed")
        columns[str(key)] = _from_any_column(str(key), values)
    lengths = {n: len(c) for n, c in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{n!r} {length}" for n, length in list(lengths.items())[:4])
        raise ValueError(f"{name}: the columns differ in length ({shown})")
    return ArrayFrame(name, columns)


def _from_any_column(name: str, values: Any) -> Column:
    if _is_of("pandas", values) or _is_of("polars", values) or _is_of("pyarrow", values):
        import narwhals as nw

        series: Any = nw.from_native(values, series_only=True, allow_series=True)
        return _from_series(name, series)
    if isinstance(values, np.ndarray) and values.ndim != 1:
        return column_of(name, list(values))
    return column_of(name, values)


def _from_array(name: str, data: Array) -> ArrayFrame:
    if data.dtype.names:
        return ArrayFrame(name, {n: column_of(n, data[n]) for n in data.dtype.names}, len(data))
    if data.ndim != 2:
        raise TypeError(f"{name}: an array of shape {data.shape} is no table; two axes are needed, rows and columns")
    return ArrayFrame(name, {str(i): column_of(str(i), data[:, i]) for i in range(data.shape[1])}, len(data))


def _from_records(name: str, data: Sequence[Any]) -> ArrayFrame:
    if not all(isinstance(row, Mapping) for row in data):
        if data and all(isinstance(row, (list, tuple, np.ndarray)) for row in data):
            if len({len(row) for row in data}) > 1:
                raise ValueError(f"{name}: the rows differ in length")
            return ArrayFrame(
                name, {str(i): column_of(str(i), [r[i] for r in data]) for i in range(len(data[0]))}, len(data)
            )
        if data:
            raise TypeError(f"{name}: a list of {type(data[0]).__name__} is no table; a list of dictionaries is one")
    names = dict.fromkeys(str(k) for row in data for k in row)
    rows = [{str(k): v for k, v in row.items()} for row in data]
    return ArrayFrame(name, {n: column_of(n, [row.get(n) for row in rows]) for n in names}, len(data))


def _from_series(name: str, series: Any) -> Column:
    """Turn a narwhals series into a column."""
    import narwhals as nw

    dtype = series.dtype
    missing = np.asarray(series.is_null().to_numpy(), dtype=np.bool_)
    any_missing = bool(missing.any())
    if dtype == nw.Boolean:
        values = (series.fill_null(False) if any_missing else series).to_numpy()
        return Column(name, "flag", values.astype(np.bool_), missing)
    if dtype.is_integer():
        if dtype in (nw.Int128, nw.UInt128):
            return number_column(name, series.cast(nw.Float64).to_numpy())
        values = (series.fill_null(0) if any_missing else series).to_numpy()
        inner = column_of(name, values)
        return Column(name, "number", inner.values, missing)
    if dtype.is_float() or dtype.is_decimal():
        return number_column(name, np.asarray(series.cast(nw.Float64).to_numpy(), dtype=np.float64))
    if isinstance(dtype, nw.Datetime):
        if dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _time(name, series.to_numpy(), missing)
    if dtype == nw.Date:
        return _time(name, series.cast(nw.Datetime("us")).to_numpy(), missing)
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return text_column(name, series.cast(nw.String).to_numpy(), missing)
    values = np.asarray(series.to_numpy()) if dtype == nw.Duration else series.to_list()
    return column_of(name, values)


def _time(name: str, values: Array, missing: Array) -> Column:
    stamps = np.asarray(values)
    if stamps.dtype.kind != "M":
        return column_of(name, list(values))
    return Column(name, "time", np.where(missing, np.datetime64(0, "s"), stamps), missing)


def _schema_kind(dtype: Any) -> Kind | None:
    """Return what a column holds where its type says it; None for objects, which have to be looked at."""
    import narwhals as nw

    if dtype == nw.Boolean:
        return "flag"
    if dtype.is_numeric():
        return "number"
    if dtype in (nw.String, nw.Categorical, nw.Enum):
        return "text"
    if dtype == nw.Date or isinstance(dtype, nw.Datetime):
        return "time"
    return "span" if dtype == nw.Duration else None


def _is_table(value: Any) -> bool:
    if isinstance(value, (str, os.PathLike)):
        return True
    if isinstance(value, np.ndarray):
        return value.ndim == 2 or value.dtype.names is not None
    if isinstance(value, Mapping):
        return True
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, Mapping) for v in value)
    return hasattr(value, "columns") or hasattr(value, "column_names")


def _is_of(package: str, value: Any) -> bool:
    """Tell by the class's home whether a value is an engine's, without importing the engine."""
    homes = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return any(home.lstrip("_") == package for home in homes)


def _distinct(names: Sequence[str]) -> list[str]:
    """Give names that stand twice a number: "a", "a (2)"."""
    seen: dict[str, int] = {}
    taken = set(names)
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        number = seen[name]
        new = name if number == 1 else f"{name} ({number})"
        while number > 1 and new in taken:
            number += 1
            new = f"{name} ({number})"
        taken.add(new)
        result.append(new)
    return result


def _nearest(name: str, names: Sequence[str]) -> str:
    """Return a hint: the one name that is really near ('tagret', 'target'; not 'nope', 'income'), else what there is."""
    lowered: dict[str, str] = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.65)
    if near:
        return f"; the nearest is {lowered[near[0]]!r}"
    if not names:
        return "; it has no columns"
    return f"; it has {', '.join(repr(n) for n in names[:5])}{' …' if len(names) > 5 else ''}"
