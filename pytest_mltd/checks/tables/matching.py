"""Which rows of one table stand in another: a hash for each row, an equi-join, and every hit compared value by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.tables import sql
from pytest_mltd.checks.tables.columns import Array, comparable_as, same
from pytest_mltd.checks.tables.frames import ArrayFrame, EagerFrame, Frame, row_keys, rows_at
from pytest_mltd.checks.tables.sql import SqlFrame

KEPT = 10_000  # pairs handed on for a closer look; all are counted


Draw = Callable[[int], tuple[ArrayFrame, ArrayFrame]]


@dataclass(frozen=True, slots=True)
class Shared:
    """The test rows that stand in train too.

    ``count`` counts them; ``test`` and ``train`` hold the first `KEPT` of them beside their partners, row for row, with all
    columns that both tables have. ``draw(n)`` gives about n rows of train and of test, chosen by their hash, in the columns
    that were compared.
    """

    count: int
    test: ArrayFrame
    train: ArrayFrame
    draw: Draw


def shared_columns(train: Frame, test: Frame, without: Sequence[str | None] = ()) -> tuple[str, ...]:
    """Return the columns that both tables have, in train's order."""
    there = set(test.columns) - set(without)
    return tuple(c for c in train.columns if c in there)


def shared_rows(train: Frame, test: Frame, columns: Sequence[str]) -> Shared:
    """Return which rows of test equal a row of train in these columns."""
    if isinstance(train, SqlFrame) and isinstance(test, SqlFrame):
        if train.is_path and test.is_path:
            return _in_duckdb(train, test, columns)
    if isinstance(train, EagerFrame) and isinstance(test, EagerFrame):
        found = _in_polars(train, test, columns)
        if found is not None:
            return found
    return _in_arrays(_whole(train), _whole(test), columns)


def comparisons(train: Frame, test: Frame, columns: Sequence[str]) -> list[str]:
    """Return for each column how its values in the two tables are brought together."""
    return [comparable_as(train.column(c), test.column(c)) for c in columns]


def _in_arrays(train: Frame, test: Frame, columns: Sequence[str]) -> Shared:
    how = comparisons(train, test, columns)
    train_keys = row_keys([train.column(c) for c in columns], how)
    test_keys = row_keys([test.column(c) for c in columns], how)
    there, here = partners(train_keys, test_keys)
    equal = np.ones(len(here), np.bool_)
    for c in columns:
        equal &= same(test.column(c).at(here), train.column(c).at(there))
    return _shared(train, test, columns, (there[equal], here[equal]), (train_keys, test_keys))


def partners(train_keys: Array, test_keys: Array) -> tuple[Array, Array]:
    """Return (position in train, position in test) for each test row whose key is in train; the first partner counts."""
    order = np.argsort(train_keys, kind="stable")
    ordered = train_keys[order]
    at = np.searchsorted(ordered, test_keys)
    at[at == len(ordered)] = 0
    here = np.flatnonzero(ordered[at] == test_keys) if len(ordered) else np.zeros(0, np.int64)
    return order[at[here]] if len(ordered) else here, here


def _shared(
    train: Frame, test: Frame, columns: Sequence[str], pairs: tuple[Array, Array], keys: tuple[Array, Array]
) -> Shared:
    both = shared_columns(train, test)
    there, here = pairs

    def draw(limit: int) -> tuple[ArrayFrame, ArrayFrame]:
        return (
            rows_at(train, chosen(keys[0], train.rows, limit), columns),
            rows_at(test, chosen(keys[1], test.rows, limit), columns),
        )

    return Shared(len(here), rows_at(test, here[:KEPT], both), rows_at(train, there[:KEPT], both), draw)


def chosen(keys: Array, rows: int, limit: int) -> Array:
    """Return the positions of about ``limit`` rows, chosen by their hash."""
    return np.arange(rows) if rows <= limit else np.flatnonzero(keys % np.uint64(rows) < limit)


def _whole(frame: Frame) -> Frame:
    return ArrayFrame(frame.name, frame.fetch(frame.columns)) if isinstance(frame, SqlFrame) else frame


# polars: hash and join in the engine


def _in_polars(train: EagerFrame, test: EagerFrame, columns: Sequence[str]) -> Shared | None:
    import importlib.util

    if importlib.util.find_spec("polars") is None:
        return None
    import polars as pl

    left, right = train.in_polars(columns), test.in_polars(columns)
    if left is None or right is None:
        return None
    left, right = _alike(left, right)
    trains, tests = (pl.DataFrame({"key": f.hash_rows()}) for f in (left, right))
    keys = trains["key"].to_numpy(), tests["key"].to_numpy()
    hits = tests.with_row_index("here").join(trains, on="key", how="semi")
    firsts = trains.with_row_index("there").join(hits, on="key", how="semi").unique("key", keep="first")
    pairs = hits.join(firsts, on="key").sort("here")
    there, here = (pairs[c].to_numpy().astype(np.int64) for c in ("there", "here"))
    equal = np.ones(len(here), np.bool_)
    if len(here):
        a, b = left[there.tolist()], right[here.tolist()]
        for c in columns:
            equal &= a[c].eq_missing(b[c]).to_numpy()
    return _shared(train, test, columns, (there[equal], here[equal]), keys)


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Bring two polars frames to types under which equal values are equal: NaN is null, categories are text."""
    import polars as pl

    changes: list[list[Any]] = [[], []]
    for name in left.columns:
        types = (left.schema[name], right.schema[name])
        target = _polars_common(*types)
        for frame, type_, change in zip((left, right), types, changes, strict=True):
            expression = pl.col(name)
            if target is not None and type_ != target:
                if isinstance(type_, pl.Datetime) and type_.time_zone:
                    expression = expression.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
                change.append(expression.cast(target))
            elif type_.is_float() and frame[name].is_nan().any():
                change.append(expression.fill_nan(None))
    parts = []
    for frame, change in zip((left, right), changes, strict=True):
        changed = frame.with_columns(change) if change else frame
        if target_nan := [
            c for c in changed.columns if changed.schema[c].is_float() and change and changed[c].is_nan().any()
        ]:
            changed = changed.with_columns(pl.col(target_nan).fill_nan(None))
        parts.append(changed)
    return parts[0], parts[1]


def _polars_common(left: Any, right: Any) -> Any:
    """Return the polars type two columns are compared in; None where they are of one type that compares by value."""
    import polars as pl

    kinds = (pl.Categorical, pl.Enum)
    if isinstance(left, kinds) or isinstance(right, kinds):
        return pl.String
    if left == right:
        return None
    numeric = [t.is_numeric() or t == pl.Boolean for t in (left, right)]
    if all(numeric):
        return pl.Int64 if left.is_integer() and right.is_integer() and pl.UInt64 not in (left, right) else pl.Float64
    if all(isinstance(t, (pl.Datetime, pl.Date)) for t in (left, right)):
        return pl.Datetime("us")
    return pl.String


# DuckDB: both tables are files, nothing is read but what the hash needs


def _in_duckdb(train: SqlFrame, test: SqlFrame, columns: Sequence[str]) -> Shared:
    casts = [sql.common_type(train.types[c], test.types[c]) for c in columns]
    keys = _Keys(train, test, train.hashed(columns, casts), test.hashed(columns, casts))
    count, found = keys.hits()
    there, here = (keys.one_row_each(side, found) for side in (0, 1))
    pairs = _in_arrays(there, here, columns)
    if pairs.count < here.rows:  # hashes collide after all: nothing is taken on trust then
        return _in_arrays(_whole(train), _whole(test), columns)

    def draw(limit: int) -> tuple[ArrayFrame, ArrayFrame]:
        return keys.drawn(0, columns, limit), keys.drawn(1, columns, limit)

    return Shared(count, pairs.test, pairs.train, draw)


# Rows are read again to be compared value by value. Of many, fifty are: with 64 bits a table of ten million rows
# has one false hit in a hundred thousand such tables, and scattered rows cost a whole second reading. Hence the fifty
# that stand nearest to train's beginning.
_COMPARED = 50


class _Keys:
    """The hashes of both tables with the place of their rows, kept in DuckDB's own memory: files are hashed once."""

    def __init__(self, train: SqlFrame, test: SqlFrame, train_key: str, test_key: str) -> None:
        self._sides = (train, test)
        self._connection = train.connection
        self._places: list[str] = []
        for i, (frame, key) in enumerate(zip(self._sides, (train_key, test_key), strict=True)):
            make = f"CREATE OR REPLACE TEMP TABLE mltd_keys{i} AS SELECT {key} AS key"
            if frame.is_one_parquet:  # a table keeps the order of what is put into it: its own row ids are the file's
                self._connection.execute(f"{make} FROM {frame.source}")
                self._places.append("'' AS file, rowid AS row, key")
            else:
                self._connection.execute(f"{make}, {frame.place} FROM {frame.placed}")
                self._places.append("file, row, key")

    def hits(self) -> tuple[int, list[int]]:
        """Return how many rows of test have a key of train, and the keys of the first rows in train that do."""
        run = self._connection.execute
        count = run("SELECT count(*) FROM mltd_keys1 SEMI JOIN mltd_keys0 USING (key)").fetchall()[0][0]
        found = run(
            f"SELECT key FROM (SELECT {self._places[0]} FROM mltd_keys0) SEMI JOIN mltd_keys1 USING (key) GROUP BY key "
            f"ORDER BY min(row), key LIMIT {_COMPARED if count else 0}"
        )
        return int(count), [key for (key,) in found.fetchall()]

    def one_row_each(self, side: int, keys: Sequence[int]) -> ArrayFrame:
        """Return a row of one table for each of some keys, with all columns that both tables have."""
        listed = ", ".join(map(str, keys)) or "NULL"
        columns = shared_columns(*self._sides)
        return self._at(
            side,
            columns,
            f"SELECT arg_min(file, row) AS file, min(row) AS row FROM (SELECT {self._places[side]} FROM mltd_keys{side}) "
            f"WHERE key IN ({listed}) GROUP BY key",
        )

    def drawn(self, side: int, columns: Sequence[str], limit: int) -> ArrayFrame:
        """Return about ``limit`` rows: few from one stretch in the middle, which is cheap, many by their hash."""
        frame = self._sides[side]
        if limit < frame.rows and limit <= _FROM_A_STRETCH:
            return ArrayFrame(frame.name, frame.fetch_stretch(columns, limit))
        condition = f"key % {max(frame.rows, 1)} < {limit}" if limit < frame.rows else "true"
        return self._at(
            side, columns, f"SELECT {self._places[side]} FROM mltd_keys{side} WHERE {condition} LIMIT {2 * limit}"
        )

    def _at(self, side: int, columns: Sequence[str], places: str) -> ArrayFrame:
        frame = self._sides[side]
        found = self._connection.execute(places).fetchnumpy()
        return ArrayFrame(frame.name, frame.fetch_places(columns, found["file"], found["row"]), len(found["row"]))


_FROM_A_STRETCH = 5_000
