"""What the session says: a line in the header, a line for each test that ran twice, and how to run a failure again."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_mltd.plugin.options import SETTINGS, Settings

UNSEEN = {
    "fork": "both runs share one hash seed and one import, so what differs from process to process does not show "
    "(-o mltd_repro_interpreter=fresh shows it)",
    "fresh": "each run had an interpreter of its own, with another hash seed",
}
MOST_LINES = 50  # of the table; failures come first, so what is left out passed
MOST_SHARED = 5
WIDEST = 70  # characters of a test's name


@dataclass(slots=True)
class Told:
    """What is known of the session's tests. Filled as reports come in, under xdist from the workers."""

    tests: int = 0
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)  # in order
    complaints: list[str] = field(default_factory=list)


class Summary:
    """Hears every report in the process that talks to the person, and writes the files that only one process may write."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings: Settings = config.stash[SETTINGS]
        self.told = Told()
        self.ledger, self.baselines = _writers(config, self.settings)

    def pytest_report_header(self) -> list[str]:
        return header(self.settings, self.config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.told.failed[report.nodeid] = None
        account = getattr(report, "mltd", None)
        if account is not None:
            self.told.accounts[report.nodeid] = account
        if report.when != "teardown":
            return
        self.told.tests += 1
        if account is None:
            return
        if self.ledger is not None:
            self.ledger.append(account.get("evidence", ()))
        if self.baselines is not None:
            self.baselines.settle(account.get("baselines", ()), passed=report.nodeid not in self.told.failed)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        complaints = complaints_about(self.settings, self.told, comparing(self.settings, self.config))
        if self.config.option.collectonly or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return
        self.told.complaints = complaints
        written = (w.complaints for w in (self.ledger, self.baselines) if w is not None)
        if complaints or any(written):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        lines = summary_lines(self.settings, self.told, self.config)
        for writer in (self.ledger, self.baselines):
            if writer is not None:
                lines += writer.lines()
        if lines or self.told.complaints:
            terminalreporter.section("mltd", sep="=")
            for line in lines:
                terminalreporter.write_line(line)
            for line in self.told.complaints:
                terminalreporter.write_line(line, red=True)


def _writers(config: pytest.Config, settings: Settings) -> tuple[Any, Any]:
    from pytest_mltd.plugin import baselines, incidents

    ledger = incidents.Ledger(config) if settings.incident else None
    return ledger, baselines.Writer(config) if settings.update else None


def header(settings: Settings, config: pytest.Config) -> list[str]:
    """Return what is imposed on the tests of this session; nothing where nothing is."""
    if not settings.repro:
        imposed = [f"seed {settings.seed}"] if settings.seed is not None else []
        imposed += _cuts(settings)
        return [f"mltd: {', '.join(imposed)}"] if imposed else []
    if not comparing(settings, config):
        return ["mltd: --pdb runs each test once; nothing is compared"]
    interpreter, why = _interpreter(settings)
    words = ", ".join([f"seed {settings.seed or 0}", f"at most {settings.rerun_steps} steps", *_slice(settings)])
    where = ", each time in a fresh interpreter" if interpreter == "fresh" else ""
    lines = [f"mltd: each test twice, {words}{where}{f' ({why})' if why else ''}"]
    if getattr(config.option, "reruns", None):
        lines.append(
            "mltd: --reruns is silenced: a failing test that is run until it passes would hide what is asked here"
        )
    return lines


def comparing(settings: Settings, config: pytest.Config) -> bool:
    """Whether tests are run twice in this session: not while somebody debugs one."""
    return settings.repro and not (config.option.usepdb or config.option.trace)


def complaints_about(settings: Settings, told: Told, comparing: bool) -> list[str]:
    """Return why the session fails although each of its tests may have passed."""
    complaints = []
    twice = [a for a in told.accounts.values() if a.get("twice")]
    skipped = told.tests and all(a.get("runs") == ["skipped"] for a in told.accounts.values())
    if comparing and told.tests and not twice and not told.failed and not skipped:
        complaints.append(
            f"--mltd-repro: none of {told.tests} tests recorded a run or asked a check, so none was run twice; "
            "record a run in one, or set the ini key mltd_repro_scope = all"
        )
    if settings.slice is not None and told.tests and not any(a.get("sliced") for a in told.accounts.values()):
        complaints.append(
            f"--mltd-slice: {settings.slice} samples of each DataLoader were asked for, and no test iterated over one, so "
            "nothing was cut; for data sliced by hand use mltd.tiny(data, mltd_slice), or --mltd-steps"
        )
    return complaints


def summary_lines(settings: Settings, told: Told, config: pytest.Config) -> list[str]:
    """Return the table of what ran twice, and the line that reruns each failure."""
    lines: list[str] = []
    if told.tests and comparing(settings, config):
        lines += _table(told)
        twice = sum(bool(a.get("twice")) for a in told.accounts.values())
        fresh = [a["fresh"] for a in told.accounts.values() if a.get("fresh")]
        if fresh and _interpreter(settings)[0] == "fork":
            lines.append(f"{len(fresh)} in fresh interpreters, because a fork did not work: {fresh[0]}")
        lines += _shared(told)
        lines.append(f"{twice} of {told.tests} tests run twice; {UNSEEN[_interpreter(settings)[0]]}")
    lines += dict.fromkeys(note for account in told.accounts.values() for note in account.get("notes", ()))
    for nodeid in told.failed:
        account = told.accounts.get(nodeid)
        if account is not None and (account.get("used") or settings.repro):
            lines.append(rerun_line(nodeid, account, settings, config))
    return lines


def rerun_line(nodeid: str, account: dict[str, Any], settings: Settings, config: pytest.Config) -> str:
    """Return the command that runs one test again as it ran here."""
    file, colons, name = nodeid.partition("::")
    local = os.path.relpath(config.rootpath / file, config.invocation_params.dir)
    words = ["rerun:", "pytest", _quoted(local + colons + name)]
    if settings.repro or settings.seed is not None or account.get("seeded"):
        words.append(f"--mltd-seed={settings.seed or 0}")
    if settings.slice is not None:
        words.append(f"--mltd-slice={settings.slice}")
    if settings.repro or settings.steps is not None:
        words.append(f"--mltd-steps={settings.rerun_steps}")
    if settings.repro and account.get("verdict") in ("differs", "flaky", "stopped", "undecided"):
        words.append("--mltd-repro")
    return " ".join(words)


def _interpreter(settings: Settings) -> tuple[str, str]:
    from pytest_mltd.plugin.repro import interpreter_of

    return interpreter_of(settings)


def _table(told: Told) -> list[str]:
    accounts = {
        n: a for n, a in told.accounts.items() if a.get("twice") or a.get("verdict") in ("stopped", "undecided")
    }
    names = sorted(accounts, key=lambda n: accounts[n]["ok"])
    width = max((min(len(n), WIDEST) for n in names), default=0)
    lines = []
    for name in names[:MOST_LINES]:
        account = accounts[name]
        mark = "  " if account["ok"] else "> "
        shown = name if len(name) <= WIDEST else "…" + name[1 - WIDEST :]
        lines.append(f"{mark}{shown.ljust(width)}  {account['sentence']}")
    if len(names) > MOST_LINES:
        lines.append(f"  {len(names) - MOST_LINES} more, the same in both runs")
    return lines


def _shared(told: Told) -> list[str]:
    """Return what is the same in both runs only because they share one import, and how to have it compared."""
    places = list(dict.fromkeys(place for account in told.accounts.values() for place in account.get("shared", ())))
    if not places:
        return []
    more = [f"  {len(places) - MOST_SHARED} more"] if len(places) > MOST_SHARED else []
    first = "made at import, so the same in both runs; pytest -o mltd_repro_interpreter=fresh compares it too:"
    return [first, *(f"  {place}" for place in places[:MOST_SHARED]), *more]


def _cuts(settings: Settings) -> list[str]:
    steps = [f"at most {settings.steps} steps"] if settings.steps is not None else []
    return [*steps, *_slice(settings)]


def _slice(settings: Settings) -> list[str]:
    return [f"{settings.slice} samples of each DataLoader"] if settings.slice is not None else []


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
