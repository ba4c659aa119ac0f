"""What is left of a job that was killed, interrupted or ran out of disk; and that memory stays flat."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pytest_mltd.core.traces import Trace
from pytest_mltd.recording import memory, spool
from pytest_mltd.recording.recorder import record

ENDLESS = """
import sys, time, torch
from torch import nn
from pytest_mltd.recording.recorder import record

model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with record(path=sys.argv[1]):
    while True:
        optimizer.zero_grad()
        model(torch.ones(2, 4)).pow(2).mean().backward()
        optimizer.step()
        print("step", flush=True)
        time.sleep(0.02)
"""


@pytest.fixture
def endless(tmp_path):
    """Start a job that trains until it is stopped; yield it with its file once it has been written to."""
    script, file = tmp_path / "train.py", tmp_path / "run.mltd"
    script.write_text(ENDLESS)
    job = subprocess.Popen(
        [sys.executable, str(script), str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and job.poll() is None:
        with contextlib.suppress(FileNotFoundError, ValueError):  # not there yet, or still empty
            if Trace.load(file).n_steps > 0:
                break
        time.sleep(0.2)
    yield job, file
    job.kill()
    job.wait()
    job.stderr.close()


def test_a_killed_job_leaves_what_was_there(endless):
    """SIGKILL, as from the kernel when memory runs out: the file reads up to the last flush and says it was torn."""
    job, file = endless
    job.send_signal(signal.SIGKILL)
    job.communicate()
    trace = Trace.load(file)
    assert trace.n_steps > 0
    assert trace.ended == "torn"
    assert [p.name for p in trace.parameters] == ["weight", "bias"]
    assert trace.settings["torch"] == torch.__version__
    assert trace.level == "default"


def test_ctrl_c_leaves_a_whole_file(endless):
    """SIGINT: closed and complete, ended interrupted."""
    job, file = endless
    job.send_signal(signal.SIGINT)
    error = job.communicate()[1].decode()
    assert "KeyboardInterrupt" in error
    trace = Trace.load(file)
    assert trace.ended == "interrupted"
    assert trace.n_steps > 0


@pytest.mark.parametrize("when", ["while it runs", "at its end"])
def test_a_full_disk_costs_the_trace_and_not_the_run(monkeypatch, when):
    """Writing fails: the program goes on to its end, memory is let go, and a note says so."""
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def full(*args):
        raise OSError(28, "No space left on device")

    with record() as run:
        if when == "while it runs":
            monkeypatch.setattr("pytest_mltd.recording.spool._MAX_SECONDS", 0)
        monkeypatch.setattr("pytest_mltd.core.traces.TraceWriter._frame", full)
        for _ in range(5):
            model(torch.ones(2, 4)).sum().backward()
            optimizer.step()
    assert any("No space left on device" in note for note in run.trace.notes), run.trace.notes
    assert run.trace.ended == "completed"
    assert sum(map(len, run._watcher.spool.rows.values())) == 0


def test_memory_stays_flat_over_many_steps(monkeypatch):
    """Rows go to the file: what Python holds after 3,000 steps is what it held after 1,000."""
    monkeypatch.setattr(memory, "_MOST", 64)  # a bound of its own, that 1,000 steps need not have reached
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.ones(2, 4)

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()

    tracemalloc.start()
    try:
        with record() as run:
            train(1000)
            run._watcher.flush()
            first = tracemalloc.get_traced_memory()[0]
            train(2000)
            run._watcher.flush()
            second = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert run.trace.n_steps == 3000
    assert second - first < 400_000  # half is the bounded memory.floats; 2,000 kept steps would be 1,000,000


@pytest.mark.slow
def test_memory_stays_flat_over_a_hundred_thousand_steps():
    """The promise in full: resident memory grows by less than 20 MB from step 10,000 to step 100,000."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    x = torch.ones(2, 4)

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with record() as run:
        for step in range(100_000):
            if step == 10_000:
                first = resident()
            optimizer.zero_grad()
            model(x).sum().backward()
            optimizer.step()
        second = resident()
    assert second - first < 20 << 20
    assert run.trace.n_steps == 100_000


def test_memory_stays_flat_without_steps(monkeypatch):
    """Updates by hand and evaluation make no step; their rows go to the file all the same."""
    monkeypatch.setattr(spool, "_MAX_CELLS", 1000)
    weight = torch.zeros(4, requires_grad=True)
    model = nn.Linear(4, 2)
    with record() as run:
        for _ in range(700):
            (weight * 2).sum().backward()
            with torch.no_grad():
                weight -= 0.1 * weight.grad
                model(torch.ones(3, 4))
            weight.grad = None
        waiting = {table: len(rows) for table, rows in run._watcher.spool.rows.items() if rows}
        assert max(waiting.values()) < 500
    assert len(run.trace.losses["step"]) == 700
    assert run.trace.of("forward").sum() == 700


def test_a_parameter_made_at_each_step_does_not_fill_the_file():
    """Adversarial perturbations: each has its own tensor and optimizer, and lives for a step."""
    with record() as run:
        for _ in range(200):
            delta = nn.Parameter(torch.zeros(4))
            optimizer = torch.optim.SGD([delta], lr=0.1)
            ((delta + 1) ** 2).sum().backward()
            optimizer.step()
    assert run.trace.n_steps == 200
    assert len(run.trace.parameters) <= 66
    assert len(run.trace.optimizers) <= 66
    assert (run.trace.steps["grad_norm"] == 4).all()
    assert run.trace.notes == ()


def test_seeds_of_one_line_are_counted_after_the_first():
    """A generator made for each sample: the first are kept one by one."""
    with record() as run:
        for seed in range(1000):
            np.random.default_rng(seed)
        np.random.default_rng()
    assert len(run.trace.seeds) == 257
    (fact,) = run.trace.facts
    assert (fact.kind, fact.who, fact.details["count"]) == ("more_seeds", "numpy.random.default_rng", 744)


def test_an_optimizer_that_has_stopped_samples_no_more_steps():
    """The first of two phases ended at a sampled count."""
    model = nn.Linear(4, 2)
    with record() as run:
        for optimizer, steps in (
            (torch.optim.SGD(model.parameters(), lr=0.01), 20),
            (torch.optim.Adam([*model.parameters()]), 200),
        ):
            for _ in range(steps):
                optimizer.zero_grad()
                model(torch.ones(3, 4)).sum().backward()
                optimizer.step()
    sampled = run.trace.outputs["step"]
    assert (sampled >= 100).sum() == 12


FORKING = """
import os, sys, torch
from torch import nn
from pytest_mltd.recording.recorder import record

model = nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def step():
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()

with record(path=sys.argv[1]) as run:
    step()
    child = os.fork()
    if child == 0:
        assert run.trace.n_steps == 0
        raise SystemExit(0)
    size = os.path.getsize(sys.argv[1])
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.getsize(sys.argv[1]) == size
    os.chdir("/")
    step()
print(run.trace.n_steps, run.trace.ended, *run.trace.streams)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_that_leaves_through_the_block_writes_nothing(tmp_path):
    """The file and the place in it are the parent's. Its lines are named from the folder that the job began in."""
    (tmp_path / "forking.py").write_text(FORKING)
    command = [sys.executable, str(tmp_path / "forking.py"), str(tmp_path / "run.mltd")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("2 completed forking.py:10\n", "")
    assert Trace.load(tmp_path / "run.mltd").n_steps == 2
