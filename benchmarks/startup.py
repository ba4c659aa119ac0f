"""What loading the plugin costs: CPU time of collecting one empty test, with the plugin and without, interleaved.

``python benchmarks/startup.py [runs]`` prints the figures and writes them under "Start-up" in benchmarks/README.md.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BAR = 15.0  # milliseconds over bare pytest
README = Path(__file__).with_name("README.md")
BARE = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "test_empty.py"]
PEERS = {"xdist": "xdist", "pytest-randomly": "pytest_randomly", "hypothesis": "_hypothesis_pytestplugin"}


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    variants = {"bare pytest": BARE, "pytest-mltd": [*BARE, "-p", "pytest_mltd.plugin"]}
    variants |= {name: [*BARE, "-p", module] for name, module in PEERS.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_empty.py").write_text("def test_nothing():\n    pass\n")
        for turn in range(runs + 1):
            for name, command in variants.items():
                spent = cpu_ms(command, folder)
                if turn:  # the first turn writes byte code
                    times[name].append(spent)
    bare = times["bare pytest"]
    # Each run against the bare run of its own turn: what disturbs the machine disturbs both.
    added = {name: [t - b for t, b in zip(times[name], bare, strict=True)] for name in times if name != "bare pytest"}
    cost = statistics.median(added["pytest-mltd"])
    lines = table(bare, added)
    lines.append(f"Bar: at most {BAR:g} ms. {'Held' if cost <= BAR else 'MISSED'} with {cost:.1f} ms.")
    print("\n".join(lines))
    write("## Start-up", lines)
    return 0 if cost <= BAR else 1


def cpu_ms(command: list[str], folder: str) -> float:
    # Byte code is cached, as it is for a user: without it every run would pay for compiling and rewriting the plugin.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE")}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPYCACHEPREFIX": f"{folder}/cache"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def table(bare: list[float], added: dict[str, list[float]]) -> list[str]:
    lines = [
        f"`python benchmarks/startup.py`: CPU time of `pytest --collect-only` on one empty test, {len(bare)} runs each,",
        "interleaved; median and quartiles of what a plugin adds to the bare run of its own turn.",
        "",
        "| loaded | CPU ms | quartiles |",
        "|---|---|---|",
        f"| bare pytest | {statistics.median(bare):.0f} | {quartiles(bare)} |",
    ]
    lines += [f"| + {name} | {statistics.median(a):+.1f} | {quartiles(a)} |" for name, a in added.items()]
    return [*lines, ""]


def quartiles(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4)
    return f"{low:.1f} to {high:.1f}"


def write(heading: str, lines: list[str]) -> None:
    """Replace one section of the README; the others belong to the other benchmarks."""
    text = README.read_text() if README.exists() else "# Benchmarks\n"
    before, _, rest = text.partition(f"{heading}\n")
    _, mark, after = rest.partition("\n## ")
    README.write_text(
        f"{before.rstrip()}\n\n{heading}\n\n" + "\n".join(lines) + "\n" + (f"\n## {after}" if mark else "")
    )


if __name__ == "__main__":
    sys.exit(main())
