"""Tables that stay in DuckDB: the path of Parquet or CSV files, and relations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pytest_mltd.checks.tables.columns import Array, Column, Kind, column_of, text_column
from pytest_mltd.checks.tables.delimited import csv_options, misfit
from pytest_mltd.core.extras import need

_ENDINGS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".csv.zst": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
}


class SqlFrame:
    """A table read by SQL. ``source`` is what stands after FROM; only what is asked for is ever read."""

    def __init__(
        self, name: str, source: str, connection: Any, relation: Any = None, *, is_folder: bool = False
    ) -> None:
        self.name = name
        self.is_folder = is_folder
        self.source = source
        self.connection = connection
        self._relation = relation
        described = relation if relation is not None else connection.sql(f"SELECT * FROM {source}")
        self.columns: tuple[str, ...] = tuple(described.columns)
        self.types: dict[str, str] = dict(zip(self.columns, map(str, described.types), strict=True))

    @cached_property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.query("SELECT count(*) AS n FROM {source}")["n"][0])

    @property
    def is_path(self) -> bool:
        """Whether any connection can read the source."""
        return self._relation is None

    def kind(self, column: str) -> Kind:
        """Return what a column holds."""
        return _kind(self.types[column])

    def column(self, name: str) -> Column:
        """Return one column, whole."""
        return self.fetch((name,))[name]

    def fetch(self, columns: Sequence[str], tail: str = "") -> dict[str, Column]:
        """Return columns of the rows that a WHERE, ORDER or LIMIT leaves."""
        return self._fetch(columns, f"{{source}} {tail}")

    def _fetch(self, columns: Sequence[str], after_from: str) -> dict[str, Column]:
        wanted = ", ".join(f"{_readable(c, self.types[c])} AS c{i}" for i, c in enumerate(columns))
        found = self.query(f"SELECT {wanted} FROM {after_from}")
        return {c: self._as_column(c, found[f"c{i}"]) for i, c in enumerate(columns)}

    def grouped(self, columns: Sequence[str]) -> tuple[dict[str, Column], Array]:
        """Return the distinct combinations of some columns' values, none missing, and how many rows have each."""
        names = ", ".join(canonical(c, self.types[c]) + f" AS {quoted(c)}" for c in columns)
        present = " AND ".join(f"{quoted(c)} IS NOT NULL" for c in columns)
        inner = f"(SELECT {names} FROM {{source}})"
        wanted = ", ".join(f"any_value({_readable(c, self._canonical_type(c))}) AS c{i}" for i, c in enumerate(columns))
        by = ", ".join(map(quoted, columns))
        found = self.query(f"SELECT {wanted}, count(*) AS n FROM {inner} WHERE {present} GROUP BY {by}")
        return {c: self._as_column(c, found[f"c{i}"]) for i, c in enumerate(columns)}, np.asarray(found["n"], np.int64)

    def _canonical_type(self, column: str) -> str:
        return "VARCHAR" if _kind(self.types[column]) == "text" else self.types[column]

    @property
    def place(self) -> str:
        """SQL of a row's place, as columns ``file`` and ``row``: Parquet files can be read again at places."""
        return (
            "filename AS file, file_row_number AS row" if self.is_parquet else "'' AS file, row_number() OVER () AS row"
        )

    @property
    def is_parquet(self) -> bool:
        """Whether the source is Parquet files."""
        return self.source.startswith("read_parquet(")

    @property
    def is_one_parquet(self) -> bool:
        """Whether the source is a single Parquet file."""
        return self.is_parquet and not self.is_folder

    @property
    def placed(self) -> str:
        """The source with the columns that `place` needs."""
        if not self.is_parquet:
            return self.source
        return self.source[:-1] + f", filename={str(self.is_folder).lower()}, file_row_number=true)"

    def fetch_places(self, columns: Sequence[str], files: Array, rows: Array) -> dict[str, Column]:
        """Return columns of the rows at these places."""
        wanted = ", ".join(map(str, rows.tolist())) or "NULL"
        if not self.is_parquet:
            numbered = f"(SELECT *, row_number() OVER () AS mltd_row FROM {self.source})"
            return self._fetch(columns, f"{numbered} WHERE mltd_row IN ({wanted})")
        if not self.is_folder:
            return self._fetch(columns, f"{self.placed} WHERE file_row_number IN ({wanted})")
        each: dict[str, list[str]] = {}
        for file, row in zip(files.tolist(), rows.tolist(), strict=True):
            each.setdefault(file, []).append(str(row))
        parts = [f"(filename = {quoted_text(f)} AND file_row_number IN ({', '.join(r)}))" for f, r in each.items()]
        return self._fetch(columns, f"{self.placed} WHERE {' OR '.join(parts) or 'false'}")

    def fetch_stretch(self, columns: Sequence[str], rows: int) -> dict[str, Column]:
        """Return so many rows that stand together, from the middle of a Parquet file, else from the beginning."""
        if self.is_one_parquet:
            start = (self.rows - rows) // 2
            return self._fetch(
                columns, f"{self.placed} WHERE file_row_number >= {start} AND file_row_number < {start + rows}"
            )
        return self._fetch(columns, f"{{source}} LIMIT {rows}")

    def query(self, sql: str) -> dict[str, Array]:
        """Run SQL in which ``{source}`` is this table; no view is left behind."""
        if self._relation is None:
            return dict(self.connection.sql(sql.replace("{source}", self.source)).fetchnumpy())
        try:
            return dict(self._relation.query("mltd_source", sql.replace("{source}", "mltd_source")).fetchnumpy())
        finally:
            self._relation.query("mltd_source", "DROP VIEW IF EXISTS mltd_source")  # DuckDB 1 leaves it behind

    def hashed(self, columns: Sequence[str], casts: Sequence[str | None]) -> str:
        """Return the SQL expression of a row's hash; ``casts`` bring columns to a type that both sides have."""
        return "hash(" + ", ".join(canonical(c, self.types[c], t) for c, t in zip(columns, casts, strict=True)) + ")"

    def _as_column(self, name: str, values: Array) -> Column:
        kind = self.kind(name)
        if kind == "text" and values.dtype == object:
            missing = (
                np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else np.zeros(len(values), bool)
            )
            return text_column(name, np.ma.getdata(values), missing)
        column = column_of(name, values)
        if kind == "time":
            return Column(name, "time", _whole(column).astype("datetime64[us]"), column.missing)
        if kind == "span":
            return Column(name, "span", _whole(column).astype("timedelta64[us]"), column.missing)
        return column


def path_frame(name: str, path: Path) -> SqlFrame:
    """Return the table of a Parquet or CSV file, or of a folder of them.

    Raises:
        ValueError: there is no such file, or it is of no kind that is read.
        MissingExtra: DuckDB is not installed.
    """
    kind, pattern = _files(name, path)
    need("duckdb", f"reading {path}")
    import duckdb

    connection = _database(os.getpid()).cursor()
    if kind == "csv":
        return _csv_frame(name, path, connection)
    source = f"read_parquet({quoted_text(pattern)}, union_by_name=true)"
    try:
        return SqlFrame(name, source, connection, is_folder=path.is_dir())
    except duckdb.Error as error:
        raise ValueError(f"{name}: {path} cannot be read as parquet ({_first_line(error)})") from error


def _csv_frame(name: str, path: Path, connection: Any) -> SqlFrame:
    import duckdb

    files = sorted(f for f in path.rglob("*") if f.is_file() and _ending(f) == "csv") if path.is_dir() else [path]
    try:
        files, options = csv_options(files, connection)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    listed = ", ".join(quoted_text(_no_glob(str(file))) for file in files)
    source = f"read_csv([{listed}], {', '.join(f'{k}={_literal(v)}' for k, v in options.items())})"
    try:
        frame = SqlFrame(name, source, connection, is_folder=path.is_dir())
        _ = frame.rows  # the names are read from the first lines; only this looks at every line
    except duckdb.Error as error:
        where = misfit(files, str(options["delim"]), connection) or f"{path} ({_first_line(error)})"
        raise ValueError(f"{name}: cannot be read as CSV: {where}") from error
    return frame


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return quoted_text(value) if isinstance(value, str) else str(value).lower()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def relation_frame(name: str, relation: Any) -> SqlFrame:
    """Return the table of a DuckDB relation, read on its own connection."""
    return SqlFrame(name, "mltd_source", None, relation)


def canonical(column: str, sql_type: str, cast: str | None = None) -> str:
    """Return the SQL of a value under which equal values are equal: NaN is null, categories are text."""
    name = quoted(column)
    if cast is not None:
        name = f"CAST({name} AS {cast})"
    elif _kind(sql_type) == "text" and sql_type != "VARCHAR":
        name = f"CAST({name} AS VARCHAR)"
    if (cast or sql_type) in ("DOUBLE", "FLOAT"):
        return f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END"
    return name


def quoted(column: str) -> str:
    """Return a column's name as SQL takes it."""
    return '"' + column.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return a text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"


def common_type(left: str, right: str) -> str | None:
    """Return the type in which two columns can be compared, None when they are of one type already."""
    if left == right:
        return None
    kinds = {_kind(left), _kind(right)}
    if kinds <= {"number", "flag"}:
        return "DOUBLE"
    if kinds == {"time"}:
        return "TIMESTAMPTZ" if "WITH TIME ZONE" in left + right else "TIMESTAMP"
    return "VARCHAR"


@lru_cache(maxsize=1)
def _database(process: int) -> Any:
    """Return a database of our own, empty and in memory: opening one costs a tenth of reading a million rows.

    One for each process: its threads do not live on in a forked child.
    """
    import duckdb

    return duckdb.connect(":memory:")


def _files(name: str, path: Path) -> tuple[str, str]:
    if not path.exists():
        raise ValueError(f"{name}: there is no file {str(path)!r}")
    if path.is_file():
        kind = _ending(path)
        if kind is None:
            raise ValueError(f"{name}: {str(path)!r} is neither Parquet nor CSV; known endings: {', '.join(_ENDINGS)}")
        return kind, _no_glob(str(path))
    found = {e: k for e, k in _ENDINGS.items() if any(f.name.endswith(e) for f in path.rglob("*") if f.is_file())}
    endings = [e for e in found if not any(o != e and o.endswith(e) for o in found)]
    if not endings:
        raise ValueError(f"{name}: the folder {str(path)!r} holds no Parquet and no CSV file")
    if len(set(found.values())) > 1 or len(endings) > 1:
        raise ValueError(f"{name}: the folder {str(path)!r} holds files of several kinds: {', '.join(sorted(endings))}")
    return found[endings[0]], f"{_no_glob(str(path))}/**/*{endings[0]}"


def _no_glob(path: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _ending(path: Path) -> str | None:
    return next((kind for ending, kind in _ENDINGS.items() if path.name.lower().endswith(ending)), None)


def _kind(sql_type: str) -> Kind:
    if sql_type == "BOOLEAN":
        return "flag"
    if sql_type.startswith(("TIMESTAMP", "DATE")):
        return "time"
    if sql_type == "INTERVAL":
        return "span"
    if sql_type.endswith("]") or sql_type.startswith(("STRUCT", "MAP", "UNION", "BLOB")):
        return "nested"
    integer = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
    if sql_type in (*integer, "UHUGEINT", "DOUBLE", "FLOAT") or sql_type.startswith("DECIMAL"):
        return "number"
    return "text"


def _readable(column: str, sql_type: str) -> str:
    """Return SQL that DuckDB hands over as a plain NumPy type."""
    name = quoted(column)
    kind = _kind(sql_type)
    if kind == "time":
        return f"epoch_us(CAST({name} AS TIMESTAMP))" if sql_type == "DATE" else f"epoch_us({name})"
    if kind == "span":
        return f"CAST(extract('epoch' FROM {name}) * 1000000 AS BIGINT)"
    if sql_type.startswith("DECIMAL") or sql_type in ("HUGEINT", "UHUGEINT"):
        return f"CAST({name} AS DOUBLE)"
    if kind in ("text", "nested") and sql_type != "VARCHAR":
        return f"CAST({name} AS VARCHAR)"
    return name


def _whole(column: Column) -> Array:
    """Return the microseconds of a column of instants; a column of nothing but nulls comes as text."""
    if column.kind == "number":
        return column.values.astype(np.int64)
    return np.zeros(len(column), np.int64)
