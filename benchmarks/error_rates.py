"""Both error rates of the questions on a recorded run, over the programs of tests/faulty (and any folder of the same shape).

usage: python benchmarks/error_rates.py [--seeds 5] [--cases DIR] [--json FILE] [name ...]

A faulty program counts as found when a failing finding has one of its accepted ids, as *first* when the first root cause
has, and its place as right when the culprit holds what META says. Whatever fails on a clean twin or a healthy program is a
false alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
CORPUS = HERE.parent / "tests" / "faulty"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--cases", type=Path, action="append", help="a folder with cases/ and healthy/; may be repeated"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="print each first finding as it reads")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    rows = []
    for path, module in programs(options.cases or [CORPUS], options.names):
        for seed in range(options.seeds):
            for variant in ("faulty", "twin") if path.parent.name == "cases" else ("healthy",):
                row = judge(path.stem, module, seed, variant)
                rows.append(row)
                say(row, options.verbose)
    report(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    sys.exit(any(r["false_alarm"] or (r["variant"] == "faulty" and not r["found"]) for r in rows))


def programs(folders: list[Path], names: list[str]) -> Iterator[tuple[Path, ModuleType]]:
    """Yield the programs of all folders, faulty ones first."""
    for folder in folders:
        for kind in ("cases", "healthy"):
            for path in sorted((folder / kind).glob("*.py")):
                if not names or path.stem in names:
                    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
                    assert spec is not None
                    assert spec.loader is not None
                    module = importlib.util.module_from_spec(spec)
                    sys.modules[spec.name] = module
                    spec.loader.exec_module(module)
                    yield path, module


def judge(name: str, module: ModuleType, seed: int, variant: str) -> dict[str, Any]:
    """Record one program, unedited, and return what the diagnosis said of it."""
    import pytest_mltd as mltd

    arguments = {} if variant == "healthy" else {"fixed": variant == "twin"}
    start = time.process_time()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with mltd.record() as run:
            module.train(seed, **arguments)
        diagnosis = mltd.diagnose(run)
    accepted, where = module.META.get("faults", []), module.META.get("where", "")
    hits = [f for f in diagnosis.failed if f.id in accepted]
    root = diagnosis.roots[0] if diagnosis.roots else None
    return {
        "name": name,
        "seed": seed,
        "variant": variant,
        "expected": accepted[0] if accepted else "",
        "failed": [f.id for f in diagnosis.failed],
        "roots": [f.id for f in diagnosis.roots],
        "found": bool(hits),
        "first": root is not None and root.id in accepted,
        "placed": bool(hits) and where in hits[0].culprit,
        "false_alarm": variant != "faulty" and bool(diagnosis.failed),
        "text": str(root) if root else "",
        "culprit": hits[0].culprit if hits else "",
        "seconds": round(time.process_time() - start, 2),
    }


def say(row: dict[str, Any], verbose: bool) -> None:
    bad = row["false_alarm"] or (row["variant"] == "faulty" and not (row["first"] and row["placed"]))
    mark, roots = "X" if bad else " ", ", ".join(row["roots"])[:70]
    print(f"{mark} {row['variant']:8}{row['name']:34}{row['seed']}  {roots} | {row['culprit'][:30]}", flush=True)
    if verbose and row["text"]:
        print(row["text"])


def report(rows: list[dict[str, Any]]) -> None:
    """Print recall, first causes, places and false alarms, in all and by check."""
    faulty = [r for r in rows if r["variant"] == "faulty"]
    twins = [r for r in rows if r["variant"] == "twin"]
    healthy = [r for r in rows if r["variant"] == "healthy"]
    alarms = Counter(i for r in rows if r["false_alarm"] for i in r["failed"])
    print(f"\n{'check':28}{'runs':>6}{'found':>8}{'first':>8}{'place':>8}{'false alarms':>14}")
    for check in sorted({r["expected"] for r in faulty} | set(alarms)):
        print(line(check, [r for r in faulty if r["expected"] == check], alarms[check]))
    print(line("all", faulty, sum(alarms.values())))
    print(
        f"false alarms: clean twins {sum(r['false_alarm'] for r in twins)} of {len(twins)} runs, "
        f"healthy programs {sum(r['false_alarm'] for r in healthy)} of {len(healthy)} runs"
    )


def line(name: str, rows: list[dict[str, Any]], alarms: int) -> str:
    shares = "".join(f"{share(rows, key):>8}" for key in ("found", "first", "placed"))
    return f"{name:28}{len(rows):6}{shares}{alarms:14}"


def share(rows: list[dict[str, Any]], key: str) -> str:
    return f"{100 * sum(r[key] for r in rows) / len(rows):.0f}%" if rows else ""


if __name__ == "__main__":
    main()
