"""What `--mltd-repro` costs: CPU time of a suite run twice, against the plain run of the same suite, interleaved.

usage: repro.py [--rounds N]
The suite is made here: tests that train a small net for 200 steps under `mltd_train`, and tests that use no mltd at all.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = """
import numpy as np
import pytest
import torch
from torch import nn


def train(width):
    x, y = torch.randn(512, 64), torch.randint(0, 10, (512,))
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(400):
        rows = torch.randint(0, 512, (64,))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("width", [64, 128, 192, 256, 320, 384])
def test_training(mltd_train, width):
    run = mltd_train(train, width)
    assert run.steps == 200


@pytest.mark.parametrize("n", range(20))
def test_other(n):
    assert np.linalg.norm(np.ones((200, 200)) @ np.ones((200, 200))) > 0
"""
PLAIN = ["-q", "-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider"]


def cpu_seconds(folder: Path, *arguments: str) -> float:
    """Return the CPU time of one session and all its children, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *PLAIN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_suite.py").write_text(SUITE)
        (folder / "pytest.ini").write_text("[pytest]\n")
        plain, twice = [], []
        for _ in range(rounds):
            plain.append(cpu_seconds(folder))
            twice.append(cpu_seconds(folder, "--mltd-repro"))
    ratios = [two / one for one, two in zip(plain, twice, strict=True)]
    print(f"plain run    {statistics.median(plain):6.2f} s CPU (median of {rounds})")
    print(f"--mltd-repro {statistics.median(twice):6.2f} s CPU")
    print(f"ratio        {statistics.median(ratios):6.2f}   from {min(ratios):.2f} to {max(ratios):.2f}; bar 2.2")


if __name__ == "__main__":
    main()
