import datetime
import decimal
import os
import subprocess
import sys

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_mltd.checks.tables.frames import open_table, sample
from pytest_mltd.checks.tables.overlap import check_group_overlap, check_row_overlap
from pytest_mltd.checks.tables.splits import check_leakage

KINDS = ("pandas", "polars", "lazy", "arrow", "columns", "records", "parquet", "csv", "folder", "relation")


def as_kind(kind, frame, folder, name):
    """Return a pandas frame as another engine's table."""
    match kind:
        case "pandas":
            return frame
        case "polars":
            return pl.from_pandas(frame)
        case "lazy":
            return pl.from_pandas(frame).lazy()
        case "arrow":
            return pa.Table.from_pandas(frame, preserve_index=False)
        case "columns":
            return {c: frame[c].to_list() for c in frame}
        case "records":
            return frame.to_dict("records")
        case "parquet":
            frame.to_parquet(folder / f"{name}.parquet")
            return str(folder / f"{name}.parquet")
        case "csv":
            frame.to_csv(folder / f"{name}.csv.gz", index=False)
            return folder / f"{name}.csv.gz"
        case "folder":
            (folder / name).mkdir()
            for i in range(2):
                frame.iloc[i::2].to_parquet(folder / name / f"{i}.parquet")
            return folder / name
        case "relation":
            return duckdb.connect().from_df(frame)


def tables(seed=0, rows=300):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=rows),
            "n": rng.integers(0, 1000, rows),
            "s": rng.choice(["x", "ü", None], rows),
            "f": rng.integers(0, 2, rows).astype(bool),
            "t": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**6, rows), "min"),
            "y": rng.integers(0, 2, rows),
        }
    )
    frame.loc[3, "a"] = np.nan
    train = frame.iloc[:200].reset_index(drop=True)
    return train, pd.concat([frame.iloc[200:], train.iloc[:10]], ignore_index=True)


def verdict(found):
    return [(f.id, f.culprit, f.headline) for f in found.failed]


@pytest.mark.parametrize("kind", KINDS)
def test_every_engine_gives_one_answer(kind, tmp_path):
    """The same tables in another engine: the same findings, word for word."""
    train, test = tables()
    expected = verdict(check_leakage(train, test, label="y", group="n", time="t", key=["n", "s"]))
    given_ = as_kind(kind, train, tmp_path, "train"), as_kind(kind, test, tmp_path, "test")
    assert len(expected) == 4
    assert verdict(check_leakage(*given_, label="y", group="n", time="t", key=["n", "s"])) == expected


@pytest.mark.parametrize(
    ("first", "second"), [("pandas", "polars"), ("polars", "parquet"), ("csv", "arrow"), ("relation", "columns")]
)
def test_two_engines_may_meet(first, second, tmp_path):
    """Train in one engine, test in another."""
    train, test = tables()
    expected = verdict(check_leakage(train, test, label="y", group="n"))
    given_ = as_kind(first, train, tmp_path, "train"), as_kind(second, test, tmp_path, "test")
    assert verdict(check_leakage(*given_, label="y", group="n")) == expected


def test_a_relation_leaves_nothing_behind():
    """The user's database has no view or table more than before."""
    connection = duckdb.connect()
    train, test = tables()
    connection.register("mine", train)
    check_leakage(connection.sql("SELECT * FROM mine"), connection.from_df(test), label="y", group="n")
    views = connection.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert [v for v in views if "mltd" in v[0]] == []
    assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]


def test_the_frame_is_not_changed():
    """Names, values and index are as they were."""
    train, test = tables()
    before = train.copy()
    check_leakage(train, test, label="y", group="n", time="t")
    pd.testing.assert_frame_equal(train, before)


def test_duplicate_names_and_indexes_are_no_trouble():
    """Two columns of one name stay two; the index counts for nothing."""
    train = pd.DataFrame([[0.5, 1.5], [2.5, 3.5], [4.5, 0.25]], columns=["a", "a"], index=[7, 7, 7])
    test = pd.DataFrame([[2.5, 3.5], [9.5, 8.5]], columns=["a", "a"], index=[0, 7])
    assert open_table(train, "train").columns == ("a", "a (2)")
    assert check_row_overlap(train, test).details["shared"] == 1


def test_columns_in_another_order_or_of_another_type_are_the_same_columns():
    """Order, integer against float, category against text, and a column more make no difference."""
    train, test = tables()
    other = test[["y", "s", "a", "f", "n", "t"]].astype({"n": float, "s": "category"}).assign(more=1)
    assert check_row_overlap(train, other, label="y").details["shared"] == 10
    assert check_row_overlap(pl.from_pandas(train), pl.from_pandas(other), label="y").details["shared"] == 10


@pytest.mark.parametrize("engine", [pd.DataFrame, lambda d: pl.DataFrame(d, strict=False)])
def test_objects_that_cannot_be_hashed_are_compared_by_their_form(engine):
    """Lists and dictionaries in cells."""
    train = engine({"x": [[1, 2], [3], [4, 5, 6]], "d": [{"a": 1}, {"a": 2}, {"a": 3}]})
    test = engine({"x": [[3], [9]], "d": [{"a": 2}, {"a": 9}]})
    assert check_row_overlap(train, test).details["shared"] == 1


def test_decimals_dates_and_mixed_objects_are_read():
    """Decimal is a number, a date is a time, a column of both text and numbers is text."""
    frame = open_table(
        pd.DataFrame(
            {
                "d": [decimal.Decimal("1.5"), None],
                "t": [datetime.date(2020, 1, 1), None],
                "m": [1, "x"],
                "u": [datetime.timedelta(1), None],
            }
        ),
        "train",
    )
    assert [frame.kind(c) for c in frame.columns] == ["number", "time", "text", "span"]
    assert frame.column("d").missing.tolist() == [False, True]


def test_a_two_dimensional_array_has_its_columns_numbered():
    """Arrays and structured arrays are tables."""
    array = np.arange(12.0).reshape(4, 3) / 7
    assert open_table(array, "train").columns == ("0", "1", "2")
    assert open_table(np.zeros(2, dtype=[("a", int), ("b", "U3")]), "train").columns == ("a", "b")
    assert check_row_overlap(array, array[:2]).failed


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ((x for x in []), "train: a generator can be read only once; pass a frame or list(...) of it"),
        (pd.Series([1, 2]), "train: a single column (Series) is no table; pass a frame"),
        (3, "train: int is no table"),
        (np.zeros(3), "train: an array of shape (3,) is no table"),
        ([1, 2], "train: a list of int is no table"),
        ({"a": 3}, "train: column 'a' is int, a sequence of values is needed"),
        ({"a": [1], "b": [1, 2]}, "train: the columns differ in length ('a' 1, 'b' 2)"),
        ([[1], [2, 3]], "train: the rows differ in length"),
        ("missing.parquet", "train: there is no file 'missing.parquet'"),
    ],
)
def test_what_is_no_table_is_refused_in_words(data, text):
    """The argument and the remedy."""
    with pytest.raises((TypeError, ValueError)) as caught:
        open_table(data, "train")
    assert str(caught.value).startswith(text)


def test_files_that_cannot_be_read_are_named(tmp_path):
    """An unknown ending, an empty folder, a damaged file."""
    (tmp_path / "t.xlsx").write_text("x")
    (tmp_path / "t.parquet").write_text("no parquet")
    (tmp_path / "empty").mkdir()
    for name, text in (
        ("t.xlsx", "neither Parquet nor CSV"),
        ("empty", "holds no Parquet"),
        ("t.parquet", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=text) as caught:
            open_table(tmp_path / name, "train")
        assert str(caught.value).startswith("train: ")


def test_a_name_with_quotes_and_brackets_is_read(tmp_path):
    """Paths and columns are data, not SQL and not patterns."""
    path = tmp_path / "it's [1] a 'table'.parquet"
    train, _test = tables()
    train.rename(columns={"a": 'a"; DROP'}).to_parquet(path)
    assert open_table(path, "train").columns[0] == 'a"; DROP'
    assert check_row_overlap(path, path).failed


def test_a_csv_says_missing_as_pandas_does(tmp_path):
    """NA and an empty field are missing, in numbers too."""
    (tmp_path / "a.csv").write_text("x,s\n1.5,a\nNA,\n2.5,c\n")
    frame = open_table(tmp_path / "a.csv", "train")
    assert frame.kind("x") == "number"
    assert frame.column("x").missing.tolist() == [False, True, False]


def test_without_an_engine_the_base_install_reads_columns_and_says_what_a_path_needs(tmp_path):
    """NumPy and narwhals alone: dictionaries work, a path gives the line to install."""
    code = """
import sys
for name in ("pandas", "polars", "pyarrow", "duckdb"):
    sys.modules[name] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda n, *a: None if n in ("pandas", "polars", "pyarrow", "duckdb") else find(n, *a)
from pytest_mltd.checks.tables.splits import check_leakage
columns = {"a": [i / 7 for i in range(60)], "b": list(range(60)), "y": [0, 1] * 30}
print(check_leakage(columns, columns, label="y", group="b").failed[0].id)
try:
    check_leakage("x.parquet", "x.parquet")
except ModuleNotFoundError as error:
    print(error)
"""
    (tmp_path / "x.parquet").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.splitlines() == [
        "overlap.group_overlap",
        "reading x.parquet needs duckdb, which is not installed: pip install 'pytest-mltd[data]'",
    ]


def test_a_sample_is_chosen_by_content():
    """The same rows whatever their order, and about as many as asked for."""
    frame = pd.DataFrame({"a": np.arange(10_000) / 3, "b": np.arange(10_000)})
    shuffled = frame.sample(frac=1, random_state=0)
    for engine in (lambda f: f, pl.from_pandas):
        first, second = (sample(open_table(engine(f), "train"), ("a", "b"), 1000) for f in (frame, shuffled))
        assert 800 < first.rows < 1200
        assert sorted(first.column("b").values.tolist()) == sorted(second.column("b").values.tolist())


cells = {
    "float": st.one_of(st.none(), st.floats(width=32), st.just(-0.0), st.just(float("nan"))),
    "int": st.integers(-(2**40), 2**40),
    "text": st.one_of(st.none(), st.text(max_size=5)),
    "flag": st.booleans(),
    "day": st.one_of(st.none(), st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1))),
}
rows = st.fixed_dictionaries(cells)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, min_size=1, max_size=12), st.lists(rows, max_size=6), st.randoms(use_true_random=False))
def test_the_engine_the_order_and_the_names_make_no_difference(train, others, random):
    """Rows permuted, columns renamed and reordered, another engine: as many shared rows as Python itself counts."""
    test = others + train[: len(train) // 2 + 1]
    expected = {_plain(r) for r in train}
    count = sum(_plain(r) in expected for r in test)
    names = {"float": "ü", "int": "a b", "text": '"', "flag": "F", "day": "d"}
    frames = []
    for side in (train, test):
        shuffled = [{names[k]: v for k, v in r.items()} for r in side]
        random.shuffle(shuffled)
        columns = list(names.values())
        random.shuffle(columns)
        frames.append({c: [r[c] for r in shuffled] for c in columns})
    schema = {"ü": pl.Float64, "a b": pl.Int64, '"': pl.String, "F": pl.Boolean, "d": pl.Date}
    in_polars = [pl.DataFrame(f, schema_overrides={c: schema[c] for c in f}, strict=False) for f in frames]
    for first, second in (frames, in_polars, [f.to_pandas() for f in in_polars], (frames[0], in_polars[1])):
        found = check_row_overlap(first, second)
        assert found.details.get("shared", 0) == count


def _plain(row):
    return tuple(
        None if isinstance(v, float) and v != v else (v + 0.0 if isinstance(v, float) else v) for v in row.values()
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1),
    st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=1),
)
def test_groups_are_the_intersection_of_two_sets(train, test):
    """Missing groups never match, whatever the engine."""
    both = ({*train} & {*test}) - {None}
    for engine in (dict, lambda d: pl.DataFrame(d, schema={"g": pl.String})):
        found = check_group_overlap(engine({"g": train}), engine({"g": test}), group="g")
        assert found.details.get("shared", 0) == len(both)


def test_empty_frames_are_not_asked():
    """No rows, no columns: no pass and no crash, in any engine."""
    for empty in (pd.DataFrame(), pl.DataFrame(), {}, [], pd.DataFrame({"a": []}), pl.DataFrame({"a": []})):
        found = check_row_overlap(empty, empty)
        assert not found.asked


STRANGE = {
    "infinite": [np.inf, 1.5, -np.inf, 2.5] * 20,
    "huge": [1e300, -1e300, 3e299, 1.0] * 20,
    "beyond int64": [2**63 + 1, 5, 7, 2**64 - 1] * 20,
    "mixed": [1, "a", None, 2.5] * 20,
    "sets": [{1}, {2}, set(), None] * 20,
    "complex": [1 + 2j, 3j, 0j, 1.0] * 20,
    "functions": [len, print, None, max] * 20,
    "emoji": ["😀\n\t", "\x00", "", "ß"] * 20,
    "times of day": [datetime.time(3), None, datetime.time(4), datetime.time(5)] * 20,
    "far dates": [datetime.date(9999, 12, 31), datetime.date(1, 1, 1), None, None] * 20,
    "nothing": [None] * 80,
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_values_break_nothing(name):
    """Every question is answered or refused for a reason that is not a failure of ours."""
    frame = {"x": [i / 7 for i in range(80)], name: STRANGE[name], "y": [0, 1] * 40}
    for engine in (lambda f: f, pd.DataFrame):
        for arguments in ({"label": "y", "group": name}, {"label": name, "key": "x"}):
            found = check_leakage(engine(frame), engine(frame), **arguments)
            assert not [f for f in found.not_asked if "failed" in f.headline]
            assert str(found)
