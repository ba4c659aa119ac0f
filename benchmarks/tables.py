"""Leakage questions beside the raw engines: ``python benchmarks/tables.py`` (about a minute; ``--rows 100000`` for a look).

Each round runs ours and its floor one after the other on the same tables; the figure is the median of the rounds' ratios of
CPU time, since seconds do not carry from machine to machine. Peak memory is what the process grew by in a fresh child.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def make_tables(rows: int, folder: Path) -> tuple[Any, Any]:
    """Write train (80%) and test (20%) of 20 columns, one test row in a hundred a copy; return them as polars frames."""
    import polars as pl

    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {f"x{i}": rng.normal(size=rows) for i in range(12)}
    columns |= {f"n{i}": rng.integers(0, 10_000, rows) for i in range(3)}
    for i, levels in enumerate((5, 50, 2_000, 100_000)):
        columns[f"c{i}"] = np.array([f"level {k}" for k in range(levels)])[rng.integers(0, levels, rows)]
    columns["y"] = (columns["x0"] + rng.normal(size=rows) > 0).astype(np.int64)
    frame = pl.DataFrame(columns)
    cut = rows * 4 // 5
    train, test = frame[:cut], frame[cut:]
    copies = max((rows - cut) // 100, 1)
    test = pl.concat([test[: len(test) - copies], train.sample(copies, seed=0)])
    train.write_parquet(folder / "train.parquet")
    test.write_parquet(folder / "test.parquet")
    return train, test


def questions(train: Any, test: Any, folder: Path) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return for each question ours, then the floors and peers that can be run here."""
    import duckdb
    import pandas as pd
    import polars as pl

    from pytest_mltd.checks.tables.leakage import check_label_leak
    from pytest_mltd.checks.tables.overlap import check_group_overlap, check_row_overlap
    from pytest_mltd.checks.tables.splits import check_leakage

    paths = str(folder / "train.parquet"), str(folder / "test.parquet")
    pandas_train, pandas_test = train.to_pandas(), test.to_pandas()

    def polars_floor() -> int:
        keys = [pl.DataFrame({"h": f.hash_rows()}) for f in (train, test)]
        return keys[1].join(keys[0], on="h", how="semi").height

    def pandas_floor() -> int:
        first, second = (pd.util.hash_pandas_object(f, index=False) for f in (pandas_train, pandas_test))
        return int(second.isin(first).sum())

    def duckdb_floor() -> Any:
        names = ", ".join(train.columns)
        sides = [f"(SELECT hash({names}) AS h FROM read_parquet('{p}'))" for p in paths]
        return duckdb.sql(f"SELECT count(*) FROM {sides[1]} SEMI JOIN {sides[0]} USING (h)").fetchall()

    def group_floor() -> int:
        return test.select("c3").unique().join(train.select("c3").unique(), on="c3", how="semi").height

    asked: dict[str, dict[str, Callable[[], Any]]] = {
        "row overlap, polars": {
            "ours": lambda: check_row_overlap(train, test),
            "polars hash_rows + join": polars_floor,
        },
        "row overlap, pandas": {
            "ours": lambda: check_row_overlap(pandas_train, pandas_test),
            "pandas hash + isin": pandas_floor,
        },
        "row overlap, Parquet": {"ours": lambda: check_row_overlap(*paths), "DuckDB hash + join": duckdb_floor},
        "group overlap, polars": {
            "ours": lambda: check_group_overlap(train, test, group="c3"),
            "polars unique + join": group_floor,
        },
        "label leak, polars": {"ours": lambda: check_label_leak(train, test, label="y")},
        "all, polars": {"ours": lambda: check_leakage(train, test, label="y", group="c3")},
        "all, Parquet": {"ours": lambda: check_leakage(*paths, label="y", group="c3")},
    }
    if _deepchecks_works():
        asked["row overlap, pandas"]["deepchecks"] = _deepchecks(pandas_train, pandas_test)
    return asked


def cpu(function: Callable[[], Any]) -> float:
    """Return the CPU seconds of one call, all threads together."""
    gc.collect()
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return CPU seconds of each side for each round, the sides taking turns; a first round warms up and is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, function in sides.items():
            spent = cpu(function)
            if turn:
                seconds[name].append(spent)
    return seconds


def growth(folder: str, question: str) -> float:
    """Return by how many MB a fresh process grows while it asks one question of Parquet files."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_grow, (folder, question)))


def _grow(folder: str, question: str) -> float:
    import duckdb

    from pytest_mltd.checks.tables.overlap import check_row_overlap

    paths = f"{folder}/train.parquet", f"{folder}/test.parquet"
    duckdb.sql("SELECT 1").fetchall()
    before = _peak()
    if question == "ours":
        check_row_overlap(*paths)
    else:
        names = ", ".join(duckdb.sql(f"SELECT * FROM read_parquet('{paths[0]}')").columns)
        sides = [f"(SELECT hash({names}) AS h FROM read_parquet('{p}'))" for p in paths]
        duckdb.sql(f"SELECT count(*) FROM {sides[1]} SEMI JOIN {sides[0]} USING (h)").fetchall()
    return _peak() - before


def _peak() -> float:
    """Return the most memory that this process has held, in MB (a child inherits its parent's ``ru_maxrss``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _deepchecks_works() -> bool:
    if importlib.util.find_spec("deepchecks") is None:
        return False
    try:
        importlib.import_module("deepchecks.tabular.checks")
    except Exception as error:  # it does not import on current scikit-learn
        print(f"deepchecks is installed and does not import: {error}")
        return False
    return True


def _deepchecks(train: Any, test: Any) -> Callable[[], Any]:
    from deepchecks.tabular import Dataset
    from deepchecks.tabular.checks import TrainTestSamplesMix

    return lambda: TrainTestSamplesMix().run(Dataset(train), Dataset(test))


def main() -> None:
    """Measure and print one line for each side of each question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, test = make_tables(options.rows, folder)
        print(f"{options.rows:,} rows × {len(train.columns)} columns, medians of {options.rounds} rounds\n")
        print(f"{'question':24}{'side':26}{'CPU s':>8}{'ours / side':>13}")
        for question, sides in questions(train, test, folder).items():
            seconds = measure(sides, options.rounds)
            for side, spent in seconds.items():
                ratios = [a / max(b, 1e-9) for a, b in zip(seconds["ours"], spent, strict=True)]
                shown = "" if side == "ours" else f"{statistics.median(ratios):.2f}"
                print(f"{question:24}{side:26}{statistics.median(spent):8.3f}{shown:>13}")
                sys.stdout.flush()
        del train, test
        for side in ("ours", "DuckDB hash + join"):
            print(f"{'row overlap, Parquet':24}{side:26}grows by {growth(str(folder), side):.0f} MB")


if __name__ == "__main__":
    main()
