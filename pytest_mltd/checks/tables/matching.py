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
    hits, count = keys.hits()
    both = shared_columns(train, test)
    there = keys.rows_of(0, both, f"key IN ({hits})")
    here = keys.rows_of(1, both, f"key IN ({hits})")
    shared = _in_arrays(there, here, columns)

    def draw(limit: int) -> tuple[ArrayFrame, ArrayFrame]:
        return (
            keys.rows_of(0, columns, f"key % {max(train.rows, 1)} < {limit}"),
            keys.rows_of(1, columns, f"key % {max(test.rows, 1)} < {limit}"),
        )

    more = count - here.rows  # beyond the first rows that were compared value by value
    return Shared(shared.count + more, shared.test, shared.train, draw)


class _Keys:
    """The hashes of both tables with the place of their rows, kept in DuckDB's own memory: files are hashed once."""

    def __init__(self, train: SqlFrame, test: SqlFrame, train_key: str, test_key: str) -> None:
        self._sides = (train, test)
        self._connection = train.connection
        for i, (frame, key) in enumerate(zip(self._sides, (train_key, test_key), strict=True)):
            self._connection.execute(
                f"CREATE OR REPLACE TEMP TABLE mltd_keys{i} AS SELECT {key} AS key, {frame.place} FROM {frame.placed}"
            )

    def hits(self) -> tuple[str, int]:
        """Return the first keys of test that train has, as SQL, and how many rows of test have one."""
        found = self._connection.execute(
            "SELECT key, count(*) AS n FROM mltd_keys1 SEMI JOIN mltd_keys0 USING (key) GROUP BY key ORDER BY key"
        ).fetchnumpy()
        return ", ".join(map(str, found["key"][:KEPT].tolist())) or "NULL", int(found["n"].sum())

    def rows_of(self, side: int, columns: Sequence[str], condition: str) -> ArrayFrame:
        """Return the rows whose key meets a condition, each key of train once."""
        frame = self._sides[side]
        places = self._connection.execute(f"SELECT file, row FROM mltd_keys{side} WHERE {condition}").fetchnumpy()
        return ArrayFrame(frame.name, frame.fetch_places(columns, places["file"], places["row"]))
