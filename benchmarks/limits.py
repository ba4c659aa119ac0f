"""What both error rates do at half and at double of each default limit of the questions on a recorded run.

usage: python benchmarks/limits.py [--seeds 1] [--traces DIR] [--cases DIR]

Every program of tests/faulty is recorded once (into DIR, where given, and read from there the next time), then each check is
asked again with one limit changed. *Found* are the programs whose META accepts the check's id and that fail it; *false* are
clean twins and healthy programs that fail it. The table goes under "Limits" in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from error_rates import CORPUS, programs
from startup import write

from pytest_mltd.core.asking import discover, info
from pytest_mltd.core.findings import Finding
from pytest_mltd.core.traces import Trace

UNSEEN = CORPUS / "unseen"


class Recorded(NamedTuple):
    """One run of a program, and the ids that its author accepts as its cause; None where nothing is wrong with it."""

    trace: Trace
    accepted: tuple[str, ...] | None


class Rates(NamedTuple):
    """How many programs fail a check that should, and that should not."""

    found: int
    false: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--traces", type=Path, help="a folder that keeps the recordings")
    parser.add_argument("--cases", type=Path, action="append", help="a folder with cases/ and healthy/")
    options = parser.parse_args()
    runs = list(recorded(options.cases or [CORPUS, UNSEEN], options.seeds, options.traces))
    clean = sum(r.accepted is None for r in runs)
    lines = [
        f"`python benchmarks/limits.py --seeds {options.seeds}`: each default limit of a question on a run, halved and",
        f"doubled, on {len(runs) - clean} runs of faulty programs and {clean} of clean twins and healthy ones. Found are the",
        "runs whose cause the check may name; false are clean ones that fail. A limit that refuses its half or",
        "double has a dash there.",
        "",
        "| limit | default | found at half, default, double | false at half, default, double |",
        "|---|---|---|---|",
    ]
    for check in discover("pytest_mltd.checks.runs", "run"):
        for name, default in limits(check):
            rates = [asked(check, runs, {name: value}) for value in around(default)]
            found = ", ".join("–" if r is None else str(r.found) for r in rates)
            false = ", ".join("–" if r is None else str(r.false) for r in rates)
            lines.append(f"| {info(check).id} `{name}` | {default:g} | {found} | {false} |")
            print(lines[-1], flush=True)
    write("## Limits", lines)


def recorded(folders: list[Path], seeds: int, traces: Path | None) -> Iterator[Recorded]:
    """Yield every program's run, faulty, mended and healthy."""
    import torch

    torch.set_num_threads(1)
    if traces is not None:
        traces.mkdir(parents=True, exist_ok=True)
    for path, module in programs(folders, []):
        for seed in range(seeds):
            for variant in ("faulty", "twin") if path.parent.name == "cases" else ("healthy",):
                kept = None if traces is None else traces / f"{path.stem}.{variant}.{seed}.mltd"
                how = {} if variant == "healthy" else {"fixed": variant == "twin"}
                trace = Trace.load(kept) if kept is not None and kept.exists() else record(module, seed, how, kept)
                accepted = tuple(module.META.get("faults", ())) if variant == "faulty" else None
                yield Recorded(trace, accepted)


def record(module: Any, seed: int, how: dict[str, Any], kept: Path | None) -> Trace:
    import pytest_mltd as mltd

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        with mltd.record() as run:
            module.train(seed, **how)
    if kept is not None:
        run.save(kept)
    return run.trace


def limits(check: Callable[..., Finding]) -> Iterator[tuple[str, float]]:
    """Yield the keyword arguments of a check that are numbers."""
    for name, parameter in inspect.signature(check).parameters.items():
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            yield name, parameter.default


def around(default: float) -> list[float]:
    """Return half, default and double; whole numbers stay whole."""
    return (
        [max(default // 2, 1), default, 2 * default]
        if isinstance(default, int)
        else [default / 2, default, 2 * default]
    )


def asked(check: Callable[..., Finding], runs: list[Recorded], limit: dict[str, float]) -> Rates | None:
    """Return how a check does under one limit, None where it refuses the limit."""
    found = false = 0
    for trace, accepted in runs:
        try:
            finding = check(trace, **limit)
        except ValueError:
            return None
        if accepted is None:
            false += finding.failed
        elif finding.id in accepted:
            found += finding.failed
    return Rates(found, false)


if __name__ == "__main__":
    main()
