"""The marker ``mltd("incident/H1", claim=…, family=…)``, and the evidence record of each test that carries it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mltd.plugin.options import SETTINGS

if TYPE_CHECKING:
    from pytest_mltd.core.trials import Condition, Outcome

MARKER = (
    'mltd(id, *, claim="", family=""): tie a test to a hypothesis of an incident, as in mltd("loan-leak/H1", claim="…")'
)
TAKES = {"claim", "family"}
FACTS = pytest.StashKey[Any]()


class Markers:
    """Refuses a wrong marker when its file is collected: a record that lands nowhere is noticed months later."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        for node in report.result or ():
            for mark in node.iter_markers("mltd") if isinstance(node, pytest.Item) else ():
                problem = problem_of(mark)
                if problem:
                    return refused(report, f"{node.nodeid}: @pytest.mark.mltd: {problem}")
        return report


def problem_of(mark: pytest.Mark) -> str:
    """Return what is wrong with a marker, or nothing."""
    from pytest_mltd.core.incidents import parse_marker

    if len(mark.args) != 1:
        return f'id: one is needed, as in mltd("loan-leak/H1"), not {len(mark.args)}'
    try:
        parse_marker(mark.args[0])
    except ValueError as error:
        return str(error)
    for name, value in mark.kwargs.items():
        if name not in TAKES:
            return f"{name}: no such argument; it takes claim and family"
        if not isinstance(value, str):
            return f"{name}: text is needed, not {value!r}"
    return ""


def learn_facts(config: pytest.Config) -> None:
    """Take down the state of the code that this process has imported, before a test runs."""
    from pytest_mltd.ledger.provenance import provenance

    config.stash[FACTS] = provenance(config.rootpath, fresh=True)  # a process may hold several sessions


def evidence_for(
    item: pytest.Item,
    outcome: Outcome,
    condition: Condition,
    *,
    runs: int = 1,
    agreed: bool = True,
    metrics: Mapping[str, Any] | None = None,
    used: bool = True,
) -> list[dict[str, Any]]:
    """Return the records of a test's outcome, one for each hypothesis of the session's incident that it is marked with."""
    settings = item.config.stash[SETTINGS]
    if not settings.incident:
        return []
    from pytest_mltd.core.incidents import evidence_of, parse_marker
    from pytest_mltd.ledger.provenance import source_digest

    function = getattr(item, "function", None)
    records = []
    for mark in item.iter_markers("mltd"):
        if parse_marker(mark.args[0])[0] != settings.incident:
            continue
        evidence = evidence_of(
            outcome,
            condition,
            item.config.stash[FACTS],
            id=mark.args[0],
            nodeid=item.nodeid,
            claim=mark.kwargs.get("claim", ""),
            family=mark.kwargs.get("family", ""),
            runs=runs,
            agreed=agreed,
            test_digest=source_digest(function) if function is not None else "",
            metrics=metrics,
            asked_nothing=outcome.kind == "passed" and not used and _holds_nothing(function),
        )
        records.append(evidence.as_dict())
    return records


def _holds_nothing(function: Any) -> bool:
    """Whether a test's own text has no assert, and no call that raises in its stead, like pytest.raises or self.assertEqual."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False  # a doctest, a test from another kind of file: nothing is known
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = [getattr(call, "attr", getattr(call, "id", "")).lower() for call in calls]
    raising = any(name.startswith(("assert", "check")) or name in ("raises", "warns", "fail") for name in names)
    return not raising and not any(isinstance(node, ast.Assert) for node in ast.walk(tree))


class Ledger:
    """Appends records as they come, so that a killed session keeps what it had. Only one process of a session has one."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.incident = config.stash[SETTINGS].incident
        self.appended = 0
        self.path: Any = None
        self.complaints: list[str] = []
        self.problems: dict[str, None] = {}

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        from pytest_mltd.core.incidents import evidence_from_dict
        from pytest_mltd.ledger import evidence as ledger
        from pytest_mltd.ledger.files import LedgerError

        for record in records:
            evidence = evidence_from_dict(record)
            try:
                self.path = self.path or self._path(evidence.nodeid)
                self.problems |= dict.fromkeys(map(str, ledger.append(self.path, evidence)))
                self.appended += 1
            except LedgerError as error:
                self.complaints.append(f"--mltd-incident: the record of {evidence.nodeid} is not kept: {error}")

    def lines(self) -> list[str]:
        noun = "record" if self.appended == 1 else "records"
        first = f"{self.appended} evidence {noun} appended"
        if self.appended:
            first += f" to {self._near(self.path)}"
        elif not self.complaints:
            first += f": no test that ran is marked mltd('{self.incident}/...')"
        return [first, *self.problems, *self.complaints]

    def _path(self, nodeid: str) -> Any:
        from pytest_mltd.ledger.evidence import ledger_path

        tests = (self.config.rootpath / nodeid.partition("::")[0]).parent
        return ledger_path(self.config.rootpath, self.incident, tests=tests)

    def _near(self, path: Any) -> str:
        try:
            return str(path.relative_to(self.config.invocation_params.dir))
        except ValueError:
            return str(path)


def refused(report: pytest.CollectReport, message: str) -> pytest.CollectReport:
    from _pytest.reports import CollectErrorRepr

    report.outcome, report.longrepr, report.result = "failed", CollectErrorRepr(message), []
    return report
