"""Which rows of one table stand in another: a hash for each row, an equi-join, and every hit compared value by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_mltd.checks.tables import sql
from pytest_mltd.checks.tables.columns import Array, Column, comparable_as, same
from pytest_mltd.checks.tables.frames import ArrayFrame, EagerFrame, Frame, row_keys
from pytest_mltd.checks.tables.sql import SqlFrame

KEPT = 10_000  # pairs handed on for a closer look; all are counted


@dataclass(frozen=True, slots=True)
class Shared:
    """The test rows that stand in train too.

    ``count`` counts them; ``test`` and ``train`` hold the first `KEPT` of them beside their partners, row for row, with all
    columns that both tables have.
    """

    count: int
    test: ArrayFrame
    train: ArrayFrame


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
        if train.engine == test.engine == "polars":
            found = _in_polars(train, test, columns)
            if found is not None:
                return found
    return _in_arrays(train, test, columns)


def comparisons(train: Frame, test: Frame, columns: Sequence[str]) -> list[str]:
    """Return for each column how its values in the two tables are brought together."""
    return [comparable_as(train.column(c), test.column(c)) for c in columns]


def _in_arrays(train: Frame, test: Frame, columns: Sequence[str]) -> Shared:
    train, test = _whole(train, columns), _whole(test, columns)
    train_keys, test_keys = _keys_of_both(train, test, columns)
    there, here = partners(train_keys, test_keys)
    equal = np.ones(len(here), np.bool_)
    for c in columns:
        equal &= same(test.column(c).at(here), train.column(c).at(there))
    return _shared(train, test, there[equal], here[equal])


def _keys_of_both(train: Frame, test: Frame, columns: Sequence[str]) -> tuple[Array, Array]:
    """Hash both tables column by column, so that no more than one column of each is held."""
    if _both_pandas(train, test):
        return _pandas_keys(train, test, columns)
    how = comparisons(train, test, columns)
    return row_keys([train.column(c) for c in columns], how), row_keys([test.column(c) for c in columns], how)


def partners(train_keys: Array, test_keys: Array) -> tuple[Array, Array]:
    """Return (position in train, position in test) for each test row whose key is in train; the first partner counts."""
    order = np.argsort(train_keys, kind="stable")
    ordered = train_keys[order]
    at = np.searchsorted(ordered, test_keys)
    at[at == len(ordered)] = 0
    here = np.flatnonzero(ordered[at] == test_keys) if len(ordered) else np.zeros(0, np.int64)
    return order[at[here]] if len(ordered) else here, here


def _shared(train: Frame, test: Frame, there: Array, here: Array) -> Shared:
    return Shared(len(here), rows_at(test, here[:KEPT]), rows_at(train, there[:KEPT]))


def rows_at(frame: Frame, positions: Array) -> ArrayFrame:
    """Return some rows as arrays."""
    if isinstance(frame, (ArrayFrame, EagerFrame)):
        return frame.at(positions)
    return ArrayFrame(frame.name, {c: frame.column(c).at(positions) for c in frame.columns}, len(positions))


def _whole(frame: Frame, columns: Sequence[str]) -> Frame:
    return ArrayFrame(frame.name, frame.fetch(frame.columns)) if isinstance(frame, SqlFrame) else frame


# pandas: its own hash of text runs over Arrow's buffers, where Python's would make a million objects


def _both_pandas(train: Frame, test: Frame) -> bool:
    return all(isinstance(f, EagerFrame) and f.engine == "pandas" for f in (train, test))


def _pandas_keys(train: Any, test: Any, columns: Sequence[str]) -> tuple[Array, Array]:
    sides: tuple[list[Column], list[Column]] = ([], [])
    how = []
    for c in columns:
        pair = [_pandas_text(c, frame.native[c]) for frame in (train, test)]
        if pair[0] is None or pair[1] is None:
            pair = [train.column(c), test.column(c)]
        for side, column in zip(sides, pair, strict=True):
            side.append(column)  # type: ignore[arg-type]
        how.append(comparable_as(sides[0][-1], sides[1][-1]))
    return row_keys(sides[0], how), row_keys(sides[1], how)


def _pandas_text(name: str, series: Any) -> Column | None:
    """Return a column of text as the hashes of its values, None if it is no plain text."""
    import pandas as pd

    if not (isinstance(series.dtype, pd.StringDtype) and len(series) > KEPT):
        return None
    missing = series.isna().to_numpy()
    hashes = pd.util.hash_pandas_object(series, index=False).to_numpy()
    return Column(name, "number", hashes.view(np.int64), missing)


# polars: hash and join in the engine


def _in_polars(train: EagerFrame, test: EagerFrame, columns: Sequence[str]) -> Shared | None:
    import polars as pl

    left, right = train.native.select(columns), test.native.select(columns)
    if any(dtype == pl.Object for dtype in (*left.dtypes, *right.dtypes)):
        return None
    left, right = _alike(left, right)
    tests = pl.DataFrame({"key": right.hash_rows()})
    trains = pl.DataFrame({"key": left.hash_rows()})
    hits = tests.with_row_index("here").join(trains, on="key", how="semi")
    if not hits.height:
        return _shared(train, test, np.zeros(0, np.int64), np.zeros(0, np.int64))
    firsts = trains.with_row_index("there").join(hits, on="key", how="semi").unique("key", keep="first")
    pairs = hits.join(firsts, on="key").sort("here")
    there, here = (pairs[c].to_numpy().astype(np.int64) for c in ("there", "here"))
    a, b = left[there.tolist()], right[here.tolist()]
    equal = np.ones(len(here), np.bool_)
    for c in columns:
        equal &= a[c].eq_missing(b[c]).to_numpy()
    return _shared(train, test, there[equal], here[equal])


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
    trains, tests = train.hashed(columns, casts), test.hashed(columns, casts)
    hits = test.query(
        f"SELECT h, count(*) AS n FROM (SELECT {tests} AS h FROM {{source}}) SEMI JOIN "
        f"(SELECT {trains} AS h FROM {train.source}) USING (h) GROUP BY h ORDER BY h"
    )
    keys, counts = np.asarray(hits["h"], dtype=np.uint64), np.asarray(hits["n"], dtype=np.int64)
    kept = keys[:KEPT]
    listed = ", ".join(map(str, kept.tolist())) or "NULL"
    both = shared_columns(train, test)
    there = ArrayFrame(train.name, train.fetch(both, f"WHERE {trains} IN ({listed})"))
    here = ArrayFrame(test.name, test.fetch(both, f"WHERE {tests} IN ({listed})"))
    shared = _in_arrays(there, here, columns)
    return Shared(shared.count + int(counts[KEPT:].sum()), shared.test, shared.train)
