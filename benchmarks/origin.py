"""What it costs to find where a NaN was born: CPU time of `locate_nonfinite` against the bare run up to there.

``python benchmarks/origin.py`` prints the figures and writes them under "Origin of a NaN" in benchmarks/README.md.
The NaN comes in the last step, the dearest case: the first pass goes through the whole run. One thread; children are counted.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable

import torch
from startup import write
from torch import nn

import pytest_mltd as mltd

BAR = 1.25
RUNS = (("S", 10_000), ("M", 150))
REPEATS = 3


def main() -> int:
    torch.set_num_threads(1)
    lines = [
        "`python benchmarks/origin.py`: CPU time of `locate_nonfinite` to that of the bare run, where the NaN comes in the",
        f"last step; medians of {REPEATS}, one thread, forked copies counted. Up to a second of it is the repetition.",
        "",
        "| model | steps | bare run, s | located, s | ratio |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for kind, steps in RUNS:
        _train(kind, 5)  # what torch does once
        bare, located = [], []
        for _ in range(REPEATS):
            bare.append(_seconds(_train, kind, steps))
            located.append(_seconds(_locate, kind, steps))
        ratios.append(statistics.median(located) / statistics.median(bare))
        middle = f"{statistics.median(bare):.1f} | {statistics.median(located):.1f} | {ratios[-1]:.2f}"
        lines.append(f"| {kind} | {steps:,} | {middle} |")
    held = max(ratios) <= BAR
    lines += ["", f"Bar: {BAR} and the repetition of one step. {'Held' if held else 'MISSED'} with {max(ratios):.2f}."]
    print("\n".join(lines))
    write("## Origin of a NaN", lines)
    return 0


def _locate(kind: str, steps: int) -> None:
    found = mltd.locate_nonfinite(_train, kind, steps)
    assert (found.details["operation"], found.step) == ("log", steps - 1), found


def _train(kind: str, count: int) -> None:
    model, x = _made(kind)
    labels = torch.randint(10, (x.shape[0],))
    optimizer = torch.optim.AdamW(model.parameters())
    for step in range(count):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        if step == count - 1:
            loss = loss + (loss * 0).log()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _made(kind: str) -> tuple[nn.Module, torch.Tensor]:
    if kind == "S":
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)), torch.randn(64, 64)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), torch.randn(32, 3, 32, 32)


def _seconds(work: Callable[[str, int], None], kind: str, steps: int) -> float:
    before = sum(os.times()[:4])
    work(kind, steps)
    return sum(os.times()[:4]) - before


if __name__ == "__main__":
    sys.exit(main())
