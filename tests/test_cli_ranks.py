"""``torchrun … -m pytest_mltd run train.py``: each process keeps a run of its own."""

import json
import os
import subprocess
import sys

import pytest

from pytest_mltd.cli import FINDINGS, MISUSE, main

DIVERGING = """
import torch

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
x = torch.randn(64, 4)
for _ in range(30):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
    optimizer.step()
"""
PARALLEL = """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
torch.manual_seed(dist.get_rank())
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for _ in range(30):
    x = torch.randn(16, 4)
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True)).backward()
    optimizer.step()
dist.destroy_process_group()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(DIVERGING)
    return tmp_path


def _as_rank(monkeypatch, rank, size=2):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(size))


def test_each_rank_keeps_its_own_run(project, monkeypatch, capsys):
    """None moves another's away; whose findings they are is said; the run before is kept by rank."""
    for rank in (0, 1, 1):
        _as_rank(monkeypatch, rank)
        assert main(["run", "train.py"]) == FINDINGS
        assert f"\nrank {rank} of 2:\n" in capsys.readouterr().out
    assert {p.name for p in (project / ".mltd").iterdir()} == {"last", "last-rank1", "previous-rank1", ".gitignore"}
    assert json.loads((project / ".mltd/last-rank1/run.json").read_text())["rank"] == 1
    assert main(["diff", ".mltd/last", ".mltd/last-rank1"]) == 0


def test_of_several_processes_no_test_is_offered(project, monkeypatch, capsys):
    """A test runs the program in one process, which is another program."""
    _as_rank(monkeypatch, 1)
    main(["run", "train.py"])
    assert main(["check", ".mltd/last-rank1"]) == FINDINGS
    assert "keep it" not in capsys.readouterr().out
    assert main(["check", ".mltd/last-rank1", "--write-test", "test_it.py"]) == MISUSE
    assert "is one of 2 processes, and a test runs the program in one" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "size"), [("0", "1"), ("x", "2"), ("5", "2"), ("-1", "2")])
def test_a_single_process_is_as_ever(project, monkeypatch, capsys, rank, size):
    """One of one, and what no launcher sets, is no rank."""
    _as_rank(monkeypatch, rank, size)
    assert main(["run", "train.py"]) == FINDINGS
    said = capsys.readouterr().out
    assert "rank" not in said
    assert "keep it: mltd check .mltd/last --write-test" in said


@pytest.mark.slow
def test_torchrun_itself(project):
    """Two processes that talk through gloo, started as a user starts them."""
    (project / "train.py").write_text(PARALLEL)
    words = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "-m",
        "pytest_mltd",
        "run",
        "train.py",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for folder in ("last", "last-rank1"):
        assert main(["check", f".mltd/{folder}"]) == 0
