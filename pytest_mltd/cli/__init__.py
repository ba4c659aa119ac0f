"""The console script ``mltd``: a thin face over the functions that tests call."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from pytest_mltd.cli.output import FINDINGS, HEALTHY, MISUSE, Misuse, Output

__all__ = ["FINDINGS", "HEALTHY", "MISUSE", "main"]

_TOP = """\
usage: mltd COMMAND ...

Find out what is wrong with a training run or its data, and keep the answer as a test.

  mltd run train.py [ITS ARGUMENTS]                  run a script for 200 steps and say what is wrong with the run
  mltd check .mltd/last                              ask a saved run
  mltd check lightning_logs/version_3                ask the log of a run that is already dead
  mltd check train.parquet test.parquet --label y    ask two tables whether one leaks into the other
  mltd diff RUN RUN                                  the first difference of two saved runs
  mltd report INCIDENT                               an incident, its hypotheses and their evidence as Markdown
  mltd faults                                        what can be planted to see whether a test would notice it

mltd COMMAND --help says more. Exit code: 0 healthy, 1 findings, 2 misuse.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 healthy, 1 findings, 2 misuse; for ``run``, that of a script that failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, rest = (words[0], words[1:]) if words else ("", [])
    if command in ("-h", "--help", "help"):
        sys.stdout.write(_TOP)
        return HEALTHY
    if command in ("-V", "--version"):
        return _version()
    if command not in _COMMANDS:
        sys.stderr.write(_TOP + (f"\nmltd: {_unknown(command)}\n" if command else ""))
        return MISUSE
    wants_json = "--json" in (_split(rest)[0] if command == "run" else rest)
    output = Output(command, json=wants_json, owns_process=argv is None)
    try:
        return _COMMANDS[command](rest, output)
    except Misuse as error:
        sys.stderr.write(f"mltd {command}: {error}\n")
        return output.end(MISUSE, error={"type": "Misuse", "message": str(error)})
    except BrokenPipeError:  # whoever read it has seen enough: mltd check … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FINDINGS
    except SystemExit as end:  # argparse has given its help
        return end.code if isinstance(end.code, int) else MISUSE


def _unknown(command: str) -> str:
    from difflib import get_close_matches

    if command.endswith(".py"):
        return f"to run a script: mltd run {command}"
    near = get_close_matches(command, _COMMANDS, n=1)
    return f"no command {command!r}" + (f"; the nearest is {near[0]!r}" if near else "")


def _version() -> int:
    from pytest_mltd import __version__

    sys.stdout.write(f"mltd {__version__}\n")
    return HEALTHY


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where more is said; without the usage of every option above it."""

    def __init__(self, command: str, usage: str, about: str, after: str) -> None:
        super().__init__(
            prog=f"mltd {command}",
            usage=usage,
            description=about,
            epilog=after,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise Misuse(f"{message} ({self.prog} --help says more)")


def _run(words: Sequence[str], output: Output) -> int:
    parser = _Parser(
        "run",
        "mltd run [OPTIONS] train.py [ITS ARGUMENTS]\n       mltd run [OPTIONS] -m pkg.train [ITS ARGUMENTS]",
        "Run a training script unedited: seeded, recorded, ended after a number of optimizer steps; then say what is wrong.",
        "Options stand before the script; everything after it is the script's own. Its exit code is kept if it fails.\n"
        "The run is kept in .mltd/last, readable also when the job is killed.",
    )
    parser.add_argument("--steps", default="200", metavar="N", help="end after N optimizer steps (200); 'all': never")
    parser.add_argument("--slice", type=int, metavar="N", help="cut every DataLoader to N samples")
    parser.add_argument("--seed", default="0", metavar="N", help="set before the run (0); 'none': leave it alone")
    parser.add_argument("--level", default="default", help="what is recorded: losses, default or everything")
    parser.add_argument(
        "--json",
        action="store_true",
        help="JSON on stdout (keys: pydoc pytest_mltd.cli.output); the script's own output goes to stderr",
    )
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module, as python -m does")
    ours, program = _split(words)
    options = parser.parse_args(ours)
    from pytest_mltd.cli.running import Wish, run_and_tell

    if options.module is None and not program:
        parser.error("no script: mltd run train.py")
    wish = Wish(
        script=None if options.module else program[0],
        module=options.module,
        arguments=tuple(program if options.module else program[1:]),
        steps=None if options.steps == "all" else _whole(parser, "--steps", options.steps, "all"),
        slice=options.slice,
        seed=None if options.seed == "none" else _whole(parser, "--seed", options.seed, "none"),
        level=options.level,
    )
    return run_and_tell(wish, output)


def _check(words: Sequence[str], output: Output) -> int:
    parser = _Parser(
        "check",
        "mltd check RUN... | LOG... | TABLE TABLE... [OPTIONS]",
        "Ask a saved run (.mltd/last, a file) what is wrong with it, or tables whether one leaks into another.\n"
        "A log of another tool is asked what its numbers can answer: TensorBoard event files or their folder, a CSV or JSON\n"
        "lines with steps and a loss, trainer_state.json, a JSON history.\n"
        "Each table is a split, named after its file: train.parquet, test.csv, a folder of Parquet files.",
        "--write-test runs nothing: the test itself runs the script or reads the tables again, with the arguments of now,\n"
        "and asks only the questions that failed. It fails until the fault is mended, and stays as the monitor.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="saved runs, logs or tables")
    parser.add_argument("--label", metavar="COLUMN", help="tables: the column that is predicted")
    parser.add_argument("--group", metavar="COLUMN", help="tables: patient, user: must not be on both sides")
    parser.add_argument("--time", metavar="COLUMN", help="tables: test must come after train")
    parser.add_argument("--key", metavar="COLUMN", help="tables: the column that names one row")
    parser.add_argument("--write-test", metavar="FILE", help="write a pytest file that fails now, for that reason")
    parser.add_argument("--json", action="store_true", help="JSON on stdout (keys: pydoc pytest_mltd.cli.output)")
    options = parser.parse_args(list(words))
    from pytest_mltd.cli.checking import check_and_tell

    columns = {name: getattr(options, name) for name in ("label", "group", "time", "key")}
    given = {name: value for name, value in columns.items() if value is not None}
    return check_and_tell(options.paths, given, options.write_test, output)


def _diff(words: Sequence[str], output: Output) -> int:
    parser = _Parser(
        "diff",
        "mltd diff RUN RUN",
        "Say where two saved runs differ first, by step, phase and module; they may come from other machines or commits.",
        "Exit code: 0 the runs are the same, 1 they differ, 2 misuse.",
    )
    parser.add_argument("runs", nargs=2, metavar="RUN", help="a saved run: a file, or a folder such as .mltd/last")
    parser.add_argument("--json", action="store_true", help="JSON on stdout (keys: pydoc pytest_mltd.cli.output)")
    options = parser.parse_args(list(words))
    from pytest_mltd.cli.checking import diff_and_tell

    return diff_and_tell(options.runs[0], options.runs[1], output)


def _report(words: Sequence[str], output: Output) -> int:
    parser = _Parser(
        "report",
        "mltd report INCIDENT",
        "Write an incident as Markdown beside its ledger: hypotheses with their status, metrics before and after, confidence,\n"
        "and every gap said in words.",
        "Evidence comes from pytest --mltd-incident INCIDENT.",
    )
    parser.add_argument("incident", metavar="INCIDENT", help="its name, as in loan-leak")
    parser.add_argument("--json", action="store_true", help="JSON on stdout; no file is written")
    options = parser.parse_args(list(words))
    from pytest_mltd.cli.reporting import report_and_tell

    return report_and_tell(options.incident, output)


def _faults(words: Sequence[str], output: Output) -> int:
    parser = _Parser(
        "faults",
        "mltd faults [NAME...]",
        "List the faults that can be planted on purpose, and what each should turn red. A test that is marked with\n"
        '@pytest.mark.mltd_fault("NAME") is run again with the fault planted, and fails unless it sees it.',
        "In code: pytest_mltd.faults.planted(NAME), around the program and the questions.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--json", action="store_true", help="JSON on stdout (keys: pydoc pytest_mltd.cli.output)")
    options = parser.parse_args(list(words))
    from pytest_mltd.cli.faults import list_and_tell

    return list_and_tell(options.names, output)


_COMMANDS = {"run": _run, "check": _check, "diff": _diff, "report": _report, "faults": _faults}

_WITH_VALUE = ("--steps", "--slice", "--seed", "--level")


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part our options from the script and what follows it. argparse would take the script's options for ours."""
    at = 0
    while at < len(words):
        if words[at] == "--":
            return list(words[:at]), list(words[at + 1 :])
        if words[at] == "-m":
            return list(words[: at + 2]), list(words[at + 2 :])
        if not words[at].startswith("-"):
            break
        at += 2 if words[at] in _WITH_VALUE else 1
    return list(words[:at]), list(words[at:])


def _whole(parser: argparse.ArgumentParser, option: str, text: str, otherwise: str) -> int:
    try:
        return int(text)
    except ValueError:
        parser.error(f"{option}: a whole number or {otherwise!r} is needed, not {text!r}")
