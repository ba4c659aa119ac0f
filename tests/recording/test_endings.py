"""What is left of a job that was killed, interrupted or ran out of disk; and that memory stays flat."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_mltd.core.traces import Trace
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


def test_memory_stays_flat_over_many_steps():
    """Rows go to the file: what Python holds after 3,000 steps is what it held after 1,000."""
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
    assert second - first < 200_000


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
