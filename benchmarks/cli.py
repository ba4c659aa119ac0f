"""What ``mltd run`` adds to a small script: CPU time beside ``python``, interleaved, and when the first line is there.

``python benchmarks/cli.py [runs]`` prints the figures and writes them under "Shell" in benchmarks/README.md.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from startup import write

BAR = 1.0  # seconds of CPU over the plain script
FIRST_LINE = 5.0  # seconds until something is said: the promise of the first minute
SCRIPT = """
import torch
torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for _ in range(200):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(net(torch.randn(64, 64)), torch.randint(10, (64,))).backward()
    optimizer.step()
"""


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    plain, ours, first = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.py").write_text(SCRIPT)
        for turn in range(runs + 1):
            spent = cpu([sys.executable, "train.py"], folder)
            used = cpu([sys.executable, "-m", "pytest_mltd", "run", "train.py"], folder)
            line = seconds_to_first_line(folder)
            if turn:  # the first turn reads everything from disk
                plain.append(spent)
                ours.append(used)
                first.append(line)
    added = statistics.median(u - p for u, p in zip(ours, plain, strict=True))
    lines = [
        f"`python benchmarks/cli.py`: CPU time of a script (200 steps of a small MLP), {runs} runs, interleaved; medians.",
        "",
        "| | CPU s |",
        "|---|---|",
        f"| python train.py | {statistics.median(plain):.2f} |",
        f"| mltd run train.py | {statistics.median(ours):.2f} |",
        "",
        f"Added: {added:.2f} s. The first line was there after {statistics.median(first):.2f} s of wall time on this machine.",
        f"Bar: at most {BAR:g} s. {'Held' if added <= BAR else 'MISSED'} with {added:.2f} s.",
    ]
    print("\n".join(lines))
    write("## Shell", lines)
    return 0 if added <= BAR and statistics.median(first) <= FIRST_LINE else 1


def cpu(command: list[str], folder: str) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_to_first_line(folder: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest_mltd", "run", "--steps", "1", "train.py"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as job:
        assert job.stderr is not None
        job.stderr.readline()
        taken = time.perf_counter() - start
        job.stderr.read()
    return taken


if __name__ == "__main__":
    sys.exit(main())
