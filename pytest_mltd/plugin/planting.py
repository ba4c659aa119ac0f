"""The marker ``mltd_fault("stale_gradients")``: a green test must be red, for that reason, with the fault planted.

The test runs once without and once with each fault, all its fixtures made anew for each run. What is told to the session are
the reports of the run without; the others only decide whether they stand.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from pytest_mltd.plugin.incidents import refused
from pytest_mltd.plugin.trial import Trial, trying

if TYPE_CHECKING:
    from pytest_mltd.core.trials import Condition
    from pytest_mltd.faults import Fault
    from pytest_mltd.plugin.runners import Ran

NAME = "mltd_fault"
MARKER = (
    f"{NAME}(name, ...): run the test again with each fault planted; it must fail then, and for that reason, as in "
    f'{NAME}("stale_gradients"); mltd faults lists them'
)
MOST_ASKED = 8  # findings named in a message
WIDEST = 200  # characters of another failure in our headline


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a test with a fault planted: plain data, for it may come from another process."""

    kind: str
    text: str = ""  # of the failure
    reason: str = ""  # of a skip, or of a run that did not come to its end
    took: bool = False
    planted: str = ""
    blamed: tuple[str, ...] = ()  # ids of the root findings of the failure
    asked: tuple[str, ...] = ()


class Checked:
    """Refuses a wrong marker when its file is collected."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        for node in report.result or ():
            for mark in node.iter_markers(NAME) if isinstance(node, pytest.Item) else ():
                problem = problem_of(mark)
                if problem:
                    return refused(report, f"{node.nodeid}: @pytest.mark.{NAME}: {problem}")
        return report


class Proofs:
    """Runs the marked tests of an ordinary session; the others are left to pytest."""

    def __init__(self, condition: Callable[[], Condition]) -> None:
        self.condition = condition

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if not faults_of(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self.reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        from pytest_mltd.recording import seeds

        random, properties = seeds.snapshot(), list(item.user_properties)

        def run(condition: Condition) -> tuple[Trial, list[pytest.TestReport]]:
            _made_anew(item, properties)
            seeds.restore(random)
            with _kept_from(item.session) as reports, trying(item, condition) as trial:
                runtestprotocol(item, log=True, nextitem=None)
            return trial, reports

        def attempt(name: str) -> Seen:
            with _subtests_uncounted(item.config):
                return seen_of(run(replace(self.condition(), fault=name))[0])

        _, reports = run(self.condition())
        return proved(item, reports, attempt)


def faults_of(item: pytest.Item) -> tuple[str, ...]:
    """Return the names of the faults that a test is marked with, each once."""
    return tuple(dict.fromkeys(name for mark in item.iter_markers(NAME) for name in mark.args))


def problem_of(mark: pytest.Mark) -> str:
    """Return what is wrong with a marker, or nothing."""
    from pytest_mltd.faults import find

    if mark.kwargs:
        return f"{next(iter(mark.kwargs))}: no such argument; it takes names of faults"
    if not mark.args:
        return f'name: one is needed, as in {NAME}("stale_gradients")'
    try:
        for name in mark.args:
            find(name)
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def proved(
    item: pytest.Item, reports: list[pytest.TestReport], attempt: Callable[[str], Seen]
) -> list[pytest.TestReport]:
    """Return the reports of a marked test that ran without a fault, failing where it is blind to one.

    Args:
        item: the test.
        reports: what the run without came to.
        attempt: runs the test with the fault of that name planted.
    """
    names = faults_of(item)
    if not names or not _green(reports):
        return reports
    if item.config.option.usepdb or item.config.option.trace:
        return _noted(reports, [f"{item.nodeid}: no fault is planted while somebody debugs it"])
    from pytest_mltd.faults import find
    from pytest_mltd.plugin import runners

    failures, unplanted, seen = [], [], []
    for fault in map(find, names):
        result = attempt(fault.name)
        if message := failure_of(fault, result):
            failures.append(message)
        elif not result.took:
            unplanted.append(result.planted)
        else:
            seen.append(f"proved: {item.nodeid} is red with '{fault.name}' planted ({', '.join(result.blamed)})")
    if failures:
        reports = runners.failing(item, reports, "\n\n".join(failures))
        _disown(reports)
    elif unplanted:
        _skip(item, reports, f"{'; '.join(unplanted)}; the test passes, and proves nothing")
    return _noted(reports, seen)


def failure_of(fault: Fault, seen: Seen) -> str:
    """Return why a test with a fault planted did not show it; nothing where it did, or where nothing was planted."""
    expected = " or ".join(fault.reds)
    if seen.kind == "passed":
        if not seen.took:
            return ""
        return _told(
            f"{NAME}: blind to '{fault.name}': the test passes with the fault planted as it does without",
            seen,
            expected,
            "ask in the test what the fault breaks, as in mltd.assert_healthy(run)",
        )
    if seen.kind != "failed":
        return (
            f"{NAME}: undecided about '{fault.name}': with it planted the test did not come to an answer: {seen.reason}"
        )
    if not seen.took:
        return _told(
            f"{NAME}: the second run fails although '{fault.name}' was not planted: {_first_line(seen.text)}",
            seen,
            expected,
            "make the test pass twice in a row: something of its first run is left over",
        )
    if set(seen.blamed) & set(fault.reds):
        return ""
    return _told(
        f"{NAME}: red for another reason with '{fault.name}' planted: {_first_line(seen.text)}",
        seen,
        expected,
        "assert what the fault breaks before what follows from it",
    )


def seen_of(trial: Trial) -> Seen:
    """Return what is to be told of a trial with a fault planted."""
    outcome = trial.outcome()
    return Seen(outcome.kind, outcome.text, outcome.reason, **_account(trial))


def account_of(trial: Trial) -> dict[str, Any] | None:
    """Return what a process that exists for this trial has to tell of its fault; None where none was asked for."""
    return None if trial.planting is None else _account(trial)


def seen_from(ran: Ran) -> Seen:
    """Return what another process told of a trial with a fault planted."""
    told: Mapping[str, Any] = ran.extra.get("fault") or {}
    lists = {name: tuple(told.get(name, ())) for name in ("blamed", "asked")}
    return Seen(
        "undecided" if ran.hung or not told else ran.outcome.kind,
        ran.outcome.text,
        ran.outcome.reason or ran.outcome.text,
        took=told.get("took", False),
        planted=told.get("planted", ""),
        **lists,
    )


def _account(trial: Trial) -> dict[str, Any]:
    from pytest_mltd.core.findings import diagnose_findings

    # A test may also say `assert finding.ok`: what failed among the questions is then what it asked about.
    findings = trial.raised if trial.raised or not trial.asserted else trial.observed.findings
    states = {f.id: "not asked" if not f.asked else "red" if f.failed else "green" for f in trial.observed.findings}
    return {
        "took": trial.planting.took,
        "planted": trial.planting.sentence,
        "blamed": tuple(f.id for f in diagnose_findings("", findings).roots),
        "asked": tuple(f"{name} ({state})" for name, state in states.items()),
    }


def _told(headline: str, seen: Seen, expected: str, next_step: str) -> str:
    asked = [
        *seen.asked[:MOST_ASKED],
        *([f"{len(seen.asked) - MOST_ASKED} more"] if len(seen.asked) > MOST_ASKED else []),
    ]
    return "\n".join(
        (
            headline,
            "",
            f"    {seen.planted}",
            f"    should be red: {expected}",
            f"    was asked: {', '.join(asked) or 'nothing'}",
            f"    next: {next_step}",
        )
    )


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"


def _green(reports: list[pytest.TestReport]) -> bool:
    """Whether the test was called and passed; an expected failure is neither green nor red."""
    return any(r.when == "call" for r in reports) and all(r.passed and not hasattr(r, "wasxfail") for r in reports)


def _skip(item: pytest.Item, reports: list[pytest.TestReport], reason: str) -> None:
    call = next(r for r in reports if r.when == "call" and not hasattr(r, "context"))
    path, line, _ = item.location
    call.outcome = "skipped"
    call.longrepr = (str(item.config.rootpath / path), (line or 0) + 1, f"Skipped: {reason}")
    _disown(reports)


def _disown(reports: list[pytest.TestReport]) -> None:
    """Let no evidence be kept of a test that passes whether the fault is there or not."""
    account = getattr(reports[-1], "mltd", None)
    if account is not None:
        account.update(ok=False, evidence=[], baselines=[])


def _noted(reports: list[pytest.TestReport], notes: list[str]) -> list[pytest.TestReport]:
    account = getattr(reports[-1], "mltd", None)
    if account is not None:
        account["notes"] = [*account.get("notes", ()), *notes]
    return reports


def _made_anew(item: pytest.Item, properties: list[tuple[str, object]]) -> None:
    """Take down all that is set up, and what the item keeps of an earlier run."""
    item.session._setupstate.teardown_exact(None)
    item.user_properties[:] = properties
    item._report_sections.clear()
    own = vars(item)
    # Hypothesis takes a second instance of the class for a mistake of the test's.
    if isinstance(item.parent, pytest.Class) and not getattr(own.get("_obj"), "is_hypothesis_test", False):
        own.pop("_instance", None)
        own["_obj"] = None


@contextlib.contextmanager
def _subtests_uncounted(config: pytest.Config) -> Iterator[None]:
    """Let pytest, which counts failed subtests by the test's name, forget those of a run with a fault."""
    key = getattr(sys.modules.get("_pytest.subtests"), "failed_subtests_key", None)
    counts = None if key is None else config.stash.get(key, None)
    before = dict(counts or {})
    try:
        yield
    finally:
        if counts is not None:
            counts.clear()
            counts.update(before)


@contextlib.contextmanager
def _kept_from(session: pytest.Session) -> Iterator[list[pytest.TestReport]]:
    """Keep the reports of a run from the session, those of subtests too."""
    from pytest_mltd.plugin import runners

    heard: list[pytest.TestReport] = []
    runners.tell_only(heard, session)
    try:
        yield heard
    finally:
        del session.gethookproxy  # the class has its own
