"""``mltd check`` and ``mltd diff``: saved runs and tables are asked, and the answer becomes a test."""

from __future__ import annotations

import difflib
import glob
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_mltd.cli import last as last_run
from pytest_mltd.cli.output import FINDINGS, HEALTHY, MISUSE, Misuse, Output
from pytest_mltd.cli.policy import project_policy
from pytest_mltd.cli.tables import check_tables
from pytest_mltd.cli.writing import free_name, run_test, test_file, write_new

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Diagnosis
    from pytest_mltd.core.traces import Trace


@dataclass(frozen=True, slots=True)
class _Saved:
    """A saved run: its file, and the folder with what else was kept of it, if it has one; or another tool's log."""

    shown: str
    file: Path
    folder: Path | None
    logged: bool = False

    @property
    def command(self) -> dict[str, Any]:
        return {} if self.folder is None else last_run.read_command(self.folder)


def check_and_tell(paths: Sequence[str], columns: Mapping[str, str], write: str | None, output: Output) -> int:
    """Ask saved runs or tables, and return the exit code."""
    with project_policy(Path.cwd()):
        return _check(_expanded(paths), columns, write, output)


def diff_and_tell(first: str, second: str, output: Output) -> int:
    """Say where two saved runs differ first, and return the exit code."""
    from pytest_mltd.checks.runs.divergence import check_divergence
    from pytest_mltd.core.findings import diagnose_findings

    saved = []
    for path in (first, second):
        run = _saved_run(path)
        if run is None:
            raise Misuse(_no_run(path))
        saved.append(run)
    one, two = (_load(run) for run in saved)
    with project_policy(Path.cwd()):
        finding = check_divergence(one, two)
    notes = []
    if (saved[0].logged or saved[1].logged) and finding.failed:
        finding = replace(finding, shows=_ONLY_LOGGED, next_step=_RECORD_BOTH)
    if told := _commands_differ(saved[0].command, saved[1].command):
        notes.append(told)
        output.say(f"{told}\n")
        if finding.failed:
            finding = replace(finding, shows=_OTHER_COMMAND, next_step="compare two runs of one command")
    elif not saved[1].logged and one.provenance.get("commit") == two.provenance.get("commit"):
        from pytest_mltd.probes.causes import Beside, explained

        finding = explained(finding, one, two, Beside())
    diagnosis = diagnose_findings(f"{first} and {second}", [finding], notes=notes)
    output.say(str(finding))
    return output.end(_verdict(diagnosis), diagnosis=diagnosis.as_dict())


def _expanded(paths: Sequence[str]) -> list[str]:
    """Return the paths with patterns in quotes replaced by what they match, as a shell does it."""
    found: list[str] = []
    for path in paths:
        pattern = any(c in path for c in "*?[") and not Path(path).exists()
        matched = sorted(glob.glob(os.path.expanduser(path), recursive=True)) if pattern else [path]
        if not matched:
            raise Misuse(f"nothing matches {path!r}")
        found += matched
    return found


_ONLY_LOGGED = "A log holds only what was printed now and then: the runs may part earlier, where nothing was logged."
_RECORD_BOTH = "for the operation that differs first, record both: mltd run train.py, twice, then mltd diff"
_OTHER_COMMAND = "They were not told to do the same, so they may differ; this is where it shows first."


def _commands_differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Say in what two runs were started differently; nothing where that is the same, or not known of both."""
    if not first or not second:
        return ""
    spoken = [_spoken(command) for command in (first, second)]
    return "" if spoken[0] == spoken[1] else f"the command lines differ: {spoken[0]}, against {spoken[1]}"


def _spoken(command: Mapping[str, Any]) -> str:
    """Return the command that makes a run again, with the options that were not left at their defaults."""
    usual = {"steps": 200, "slice": None, "seed": 0, "level": "default"}
    never = {"steps": "all", "seed": "none"}
    given = {k: command.get(k, v) for k, v in usual.items() if command.get(k, v) != v}
    options = [f"--{k} {never.get(k, v) if v is None else v}" for k, v in given.items()]
    program = [str(command["script"])] if command.get("script") else ["-m", str(command.get("module"))]
    return " ".join(["mltd run", *options, shlex.join([*program, *map(str, command.get("arguments", ()))])])


def _check(paths: Sequence[str], columns: Mapping[str, str], write: str | None, output: Output) -> int:
    found = {path: _saved_run(path, logs=not columns) for path in paths}
    runs = [saved for saved in found.values() if saved is not None]
    if not runs:
        return check_tables(paths, columns, write, output)
    if len(runs) < len(found):
        other = next(path for path, saved in found.items() if saved is None)
        raise Misuse(f"{other!r} is no saved run, as {runs[0].shown!r} is; ask runs and tables by one command each")
    if columns:
        raise Misuse(f"--{next(iter(columns))} is for tables; {paths[0]} is a saved run")
    if len(runs) == 1:
        return _check_run(runs[0], write, output)
    if write is not None:
        raise Misuse("--write-test: one saved run at a time")
    return _check_runs(runs, output)


def _check_run(saved: _Saved, write: str | None, output: Output) -> int:
    diagnosis = _ask(saved)
    command = saved.command
    try:  # before anything is said: whoever reads may leave early, as head does
        written = None if write is None else _write_run_test(saved, command, diagnosis, write)
    finally:
        output.say(str(diagnosis))
    error = command.get("error")
    if error and not diagnosis.crashed:
        output.say(f"the program ended with {error.get('type')}: {error.get('message')}")
    keep = None
    if written is not None:
        output.say(f"written: {written} (runs nothing now; pytest {shlex.quote(written)} runs it)")
    elif (diagnosis.failed or (error and diagnosis.findings)) and command and command.get("processes", 1) == 1:
        keep = f"mltd check {shlex.quote(saved.shown)} --write-test {shlex.quote(free_name(Path.cwd()))}"
        output.say(f"keep it: {keep}")
    code = FINDINGS if error else _verdict(diagnosis)
    return output.end(code, diagnosis=diagnosis.as_dict(), written=written, keep=keep, error=error)


def _check_runs(runs: Sequence[_Saved], output: Output) -> int:
    diagnoses = {run.shown: _ask(run) for run in runs}
    for name, diagnosis in diagnoses.items():
        output.say(f"{name}\n{diagnosis}\n")
    verdicts = {_verdict(diagnosis) for diagnosis in diagnoses.values()}
    code = FINDINGS if FINDINGS in verdicts else max(verdicts)
    return output.end(code, diagnoses={name: diagnosis.as_dict() for name, diagnosis in diagnoses.items()})


def _ask(saved: _Saved) -> Diagnosis:
    """Ask a saved run anew; what only the living model could be asked is taken from when it was recorded."""
    from pytest_mltd.core.findings import diagnosis_from_dict
    from pytest_mltd.diagnosis import diagnose

    now = diagnose(_load(saved))
    then = diagnosis_from_dict({} if saved.folder is None else last_run.read_diagnosis(saved.folder))
    known = {f.id for f in now.findings}
    probed = tuple(f for f in then.findings if f.id not in known)
    answered = {f.id for f in probed}
    reasons = {f.id: f for f in then.not_asked if f.id.startswith("model.")}  # while the model was there
    more = then.looked_at.startswith(now.looked_at)  # what the probes took besides
    return replace(
        now,
        looked_at=then.looked_at if more else now.looked_at,
        findings=(*now.findings, *probed),
        not_asked=tuple(reasons.get(f.id, f) for f in now.not_asked if f.id not in answered),
    )


def _write_run_test(saved: _Saved, command: Mapping[str, Any], diagnosis: Diagnosis, write: str) -> str:
    if not command:
        what = " is another tool's log: it" if saved.logged else ""
        raise Misuse(
            f"--write-test: {saved.shown!r}{what} does not say which program made it; only a run of mltd run does"
        )
    if (processes := command.get("processes", 1)) != 1:
        raise Misuse(
            f"--write-test: {saved.shown!r} is one of {processes} processes, and a test runs the program in one"
        )
    if not diagnosis.failed and not command.get("error"):
        raise Misuse("--write-test: no question failed, so there is no test that would fail now")
    file = test_file(write)
    write_new(file, write, run_test(file, _project(saved, command), command, diagnosis.failed, diagnosis.roots))
    return write


def _project(saved: _Saved, command: Mapping[str, Any]) -> Path:
    """Return the folder the program ran in; where the saved run came from another machine, the one it lies in now."""
    ran_in = Path(str(command.get("cwd", "")))
    if ran_in.is_dir() or saved.folder is None:
        return ran_in
    here = saved.folder.resolve()
    return here.parents[1] if here.parent.name == ".mltd" else Path.cwd()


def _saved_run(path: str, *, logs: bool = True) -> _Saved | None:
    """Return the saved run or (``logs``) the log at a path, or None if it is something else: a table, most likely."""
    from pytest_mltd.intake import is_log

    saved = _own_run(path)
    if saved is None and logs and is_log(path):
        return _Saved(path, Path(path), None, logged=True)
    return saved


def _own_run(path: str) -> _Saved | None:
    from pytest_mltd.core.traces import MAGIC

    place = Path(path)
    if place.is_dir():
        folder = place / "last" if place.name == ".mltd" else place
        file = folder / last_run.TRACE
        if not file.exists() and (folder / last_run.COMMAND).exists():
            raise Misuse(f"{path!r} holds no trace: the run ended before its program began")
        return _Saved(str(folder), file, folder) if file.exists() else None
    try:
        with open(place, "rb") as file_:
            is_trace = file_.read(len(MAGIC)).startswith(MAGIC[:18])
    except OSError:
        return None
    kept = place.name == last_run.TRACE and (place.parent / last_run.COMMAND).exists()
    return _Saved(path, place, place.parent if kept else None) if is_trace else None


def _load(saved: _Saved) -> Trace:
    from pytest_mltd.core.traces import Trace
    from pytest_mltd.intake import read

    try:
        return read(saved.file) if saved.logged else Trace.load(saved.file)
    except (ValueError, OSError) as error:
        raise Misuse(str(error)) from None


def _no_run(path: str) -> str:
    place = Path(path)
    if not place.exists():
        near = difflib.get_close_matches(place.name, [p.name for p in place.parent.glob("*")], n=1)
        return f"nothing at {path!r}" + (f"; the nearest is {str(place.with_name(near[0]))!r}" if near else "")
    if place.is_dir():
        return f"{path!r} holds no saved run ({last_run.TRACE})"
    return f"{path!r} is no saved run"


def _verdict(diagnosis: Diagnosis) -> int:
    if diagnosis.failed or diagnosis.crashed:
        return FINDINGS
    if not diagnosis.findings:
        return MISUSE  # nothing examined is not a pass
    return HEALTHY
