"""``--mltd-repro``: each test in a child, those that used mltd twice; one set of reports for each, with the verdict.

What a child does beside its reports stays in the child: a coverage measurement of this process does not see it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_mltd.plugin import planting, runners
from pytest_mltd.plugin.options import SETTINGS, Settings
from pytest_mltd.plugin.runners import Ran
from pytest_mltd.plugin.trial import POLICY
from pytest_mltd.probes import children
from pytest_mltd.trials.repro import Repro, is_worth_it, repro

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Finding
    from pytest_mltd.core.trials import Condition, Outcome


class Twice:
    """Runs the tests of a session. It takes the place of pytest's own protocol, and of any other plugin's that reruns tests."""

    def __init__(self, config: pytest.Config, threads: children.Threads | None) -> None:
        self.config = config
        self.settings: Settings = config.stash[SETTINGS]
        self.threads = threads
        self.interpreter, self.why = interpreter_of(self.settings)
        self.shared: tuple[str, ...] = ()  # what both runs draw alike, since they share what was imported
        self._folder = Path(tempfile.mkdtemp(prefix="mltd-trials-"))
        factory = getattr(config, "_tmp_path_factory", None)
        if factory is not None:
            factory.getbasetemp()  # made here, or else each child would make one, and remove those of the others

    def pytest_unconfigure(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def pytest_collection_finish(self) -> None:
        from pytest_mltd.probes.importing import drawn_at_import

        if self.interpreter == "fork":
            files = [
                vars(module).get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__")
            ]
            self.shared = drawn_at_import(files, self.config.rootpath)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in planting.proved(item, self.reports_of(item), lambda name: self._with_fault(item, name)):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_enter_pdb(self) -> None:
        children.is_debugging()

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Run the test as often as it takes, and return the reports that the session is told."""
        result, ran, born = self._tried(item, self.interpreter)
        why = next((r.outcome.text for r in ran if r.hung), "")
        if why:
            # Forking did not work out for this test, or for torch in this process at all; a new process has no such past.
            if any(r.unsafe for r in ran):
                self.interpreter, self.why = "fresh", why
            result, ran, born = self._tried(item, "fresh")
        for one in ran[:1]:
            runners.show_warnings(one)
        reports = verdict_reports(item, result, ran, self.settings)
        if born is not None:
            _add_birth(reports, born)
        if reports and (why or self.why):
            reports[-1].mltd["fresh"] = why or self.why
        elif reports and self.shared and result.verdict == "same":
            reports[-1].mltd["sentence"] += ", from one import"
            reports[-1].mltd["shared"] = list(self.shared)
        return reports

    def _with_fault(self, item: pytest.Item, name: str) -> planting.Seen:
        """Run the test once more, with a fault planted."""
        trial = _TrialOf(self, item)
        try:
            trial.attempt(replace(self._condition(self.interpreter), fault=name))
        finally:
            shutil.rmtree(trial.folder, ignore_errors=True)
        return planting.seen_from(trial.ran[0])

    def _tried(self, item: pytest.Item, interpreter: str) -> tuple[Repro, list[Ran], Finding | None]:
        trial = _TrialOf(self, item)
        try:
            result = repro(
                trial.attempt,
                self._condition(interpreter),
                compare=trial.compare,
                worth=is_worth_it if self.settings.repro_scope == "used" else _always,
            )
            born = trial.born(result, self._condition(interpreter))
        finally:
            shutil.rmtree(trial.folder, ignore_errors=True)
        return result, trial.ran, born

    def _condition(self, interpreter: Any) -> Condition:
        from pytest_mltd.core.trials import Condition

        settings = self.settings
        # Where fresh interpreters only stand in for forks, they must show what forks show: one hash seed for both.
        stands_in = interpreter == "fresh" and settings.repro_interpreter == "fork"
        return Condition(
            seed=settings.seed or 0,
            steps=settings.rerun_steps,
            slice=settings.slice,
            exact=True,
            interpreter=interpreter,
            hash_seed=0 if stands_in else None,
        )


class _TrialOf:
    """The attempts at one test, and the comparison of what they recorded."""

    def __init__(self, twice: Twice, item: pytest.Item) -> None:
        self.twice, self.item = twice, item
        self.folder = Path(tempfile.mkdtemp(dir=twice._folder))
        self.ran: list[Ran] = []
        self._before_ns = 0
        self._watch: int | None = None  # the step before which operations are watched

    def attempt(self, condition: Condition) -> Outcome:
        settings, now = self.twice.settings, time.time_ns()
        self._before_ns = self._before_ns or now
        job = {
            "folder": str(self.folder / f"run{len(self.ran) + 1}"),
            "before_ns": self._before_ns,
            "began_ns": now,
            "protected": [path for ran in self.ran for path in ran.extra.get("witness", {}).get("changed", ())],
            "strict": bool(self.ran) or settings.repro_scope == "all",
            "watch": self._watch,
        }
        still = float(settings.repro_timeout)
        if condition.interpreter == "fresh":
            ran = runners.in_fresh_interpreter(self.item, condition, job, still)
        else:
            threads = self.twice.threads.wanted if self.twice.threads is not None else None
            ran = runners.in_fork(self.item, condition, job, threads, still)
            children.preload(ran.extra.get("loaded", ()))
        self.ran.append(ran)
        if ran.hung:
            from pytest_mltd.core.trials import Outcome

            return Outcome(kind="undecided", reason=ran.outcome.text)
        return ran.outcome

    def born(self, result: Repro, condition: Condition) -> Finding | None:
        """Where a recorded run was not finite, run it once more and watch which operation made the first such value."""
        if result.verdict in ("stopped", "undecided") or any(ran.hung for ran in self.ran):
            return None
        from pytest_mltd.checks.runs.nonfinite import first_nonfinite
        from pytest_mltd.core.findings import finding_from_dict
        from pytest_mltd.core.traces import Trace

        traces = [Trace.load(path) for path in result.outcomes[0].traces]
        steps = (first_nonfinite(trace) for trace in traces if trace.level != "scalars")
        self._watch = next((step for step in steps if step is not None), None)
        if self._watch is None:
            return None
        self.attempt(condition)
        found = self.ran.pop().extra.get("born")  # it is no run to be judged
        return None if found is None else finding_from_dict(found)

    def compare(self, first: str, second: str) -> Finding:
        from pytest_mltd.checks.runs.divergence import check_divergence
        from pytest_mltd.core import asking
        from pytest_mltd.core.traces import Trace
        from pytest_mltd.probes.causes import Beside, comparable, explained

        one, two = comparable(Trace.load(first)), comparable(Trace.load(second))
        policy = self.item.config.stash.get(POLICY, None) or asking.Policy()
        with asking.policy(policy):
            try:
                finding = check_divergence(one, two)
            except Exception as error:  # a defect of the check must end neither the session nor in a pass
                return _uncomparable(error)
        if "full" in (one.ended, two.ended):  # the programs went on where nothing of them was recorded
            finding = replace(finding, details={**finding.details, "recorded_steps": min(one.busiest, two.busiest)})
        return explained(finding, one, two, Beside(self.ran[-1].reread, self.ran[0].drawn))


def interpreter_of(settings: Settings) -> tuple[str, str]:
    """Return where runs are made, and why not where it was asked for."""
    if settings.repro_interpreter == "fresh":
        return "fresh", ""
    why = children.forbids_fork()
    return ("fresh", why) if why else ("fork", "")


def verdict_reports(item: pytest.Item, result: Repro, ran: list[Ran], settings: Settings) -> list[pytest.TestReport]:
    """Return one set of reports for a test that ran once or more: the reports of one run, with the verdict of all."""
    result = _with_hash_seed(result)
    chosen = _speaking(result, ran)
    reports = chosen.reports
    message = _own_failure(result)
    if message and not any(r.failed for r in reports):
        reports = runners.failing(item, reports, message)
    elif result.verdict not in ("once",):
        _add_to_failure(reports, result, message)
    if reports:
        reports[-1].mltd = _account(item, result, ran, settings)  # type: ignore[attr-defined]
    return reports


def _speaking(result: Repro, ran: list[Ran]) -> Ran:
    """Return the run whose reports are told: the first, unless only the second has the failure to show."""
    if len(ran) > 1 and ran[0].outcome.kind != "failed" and (ran[1].outcome.kind == "failed" or ran[1].outcome.wrote):
        return ran[1]
    if result.verdict == "undecided":
        return next(r for r in ran if r.outcome.kind == "undecided" or r.hung)
    return ran[0]


def _own_failure(result: Repro) -> str:
    """Return the failure that the runs together are, where no run by itself need have failed."""
    if result.verdict in ("differs", "flaky"):
        head = f"CheckFailed: {result.difference}" if result.difference is not None else ""
        return head if result.verdict == "differs" else f"{result.sentence}\n\n{head}".rstrip()
    if result.verdict in ("stopped", "undecided"):
        return result.sentence
    return ""


def _add_to_failure(reports: list[pytest.TestReport], result: Repro, message: str) -> None:
    """Put the verdict under the failure that a run of its own has, and before its line in the short summary."""
    for report in reports:
        if not report.failed:
            continue
        report.sections.append(("mltd", result.sentence + (f"\n\n{result.difference}" if result.difference else "")))
        crash = getattr(report.longrepr, "reprcrash", None)
        if crash is not None and message:
            crash.message = f"{result.sentence.partition(':')[0]}: {crash.message}"
        return


def _add_birth(reports: list[pytest.TestReport], born: Finding) -> None:
    """Say which operation made the first value that is not finite: under the failure, or in the summary where it passed."""
    from pytest_mltd.core.rendering import headline

    failed = next((report for report in reports if report.failed), None)
    if failed is not None:
        failed.sections.append(("mltd: where it was born", str(born)))
    elif reports:
        reports[-1].mltd["notes"].append(headline(born))


def _with_hash_seed(result: Repro) -> Repro:
    from pytest_mltd.probes.causes import follows_hash_seed, follows_the_process

    if result.difference is None or result.hash_seed is None:
        return result
    tell = follows_hash_seed if result.hash_seed else follows_the_process
    return replace(result, difference=tell(result.difference))


def _account(item: pytest.Item, result: Repro, ran: list[Ran], settings: Settings) -> dict[str, Any]:
    """Return what the controller is told of a test: plain values that xdist can carry."""
    from pytest_mltd.core.trials import Condition
    from pytest_mltd.plugin.incidents import evidence_for

    first = ran[0]
    return {
        "used": bool(first.outcome.traces or first.outcome.asked),
        "twice": result.verdict != "once" and len(ran) > 1,
        "runs": [r.outcome.kind for r in ran],
        "verdict": result.verdict,
        "sentence": result.sentence,
        "ok": result.ok,
        "sliced": any(r.extra.get("sliced", False) for r in ran),
        "baselines": list(first.extra.get("baselines", ())) if result.ok else [],
        "notes": list(dict.fromkeys(note for r in ran for note in r.extra.get("notes", ()))),
        "evidence": evidence_for(
            item,
            _one_outcome(result),
            Condition(seed=settings.seed or 0, steps=settings.rerun_steps, slice=settings.slice),
            runs=len(ran),
            agreed=result.verdict in ("same", "once"),
            metrics=first.extra.get("metrics", {}),
            used=bool(first.outcome.traces or first.outcome.asked),
        ),
    }


def _one_outcome(result: Repro) -> Outcome:
    failed = [o for o in result.outcomes if o.kind != "passed"]
    outcome = failed[0] if failed else result.outcomes[0]
    if result.verdict in ("stopped", "undecided"):
        return replace(outcome, kind="undecided", reason=result.sentence)
    return outcome


def _uncomparable(error: Exception) -> Finding:
    from pytest_mltd.core.findings import Finding

    return Finding(
        ok=False,
        id="runs.divergence",
        headline=f"the comparison of the two runs failed: {type(error).__name__}: {error}",
        culprit="comparison",
        shows="This is a defect of pytest-mltd and says nothing about the test.",
        next_step="report it, with the two recorded runs",
    )


def _always(outcome: Outcome) -> bool:
    return outcome.kind in ("passed", "failed")
