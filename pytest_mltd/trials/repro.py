"""Is it the same twice, bit for bit? One test, run again with nothing changed.

::

    repro(attempt, Condition(seed=0, steps=200, exact=True), compare=compare)

``attempt(condition) -> Outcome`` runs the test; whoever calls this brings it, and the comparison of two recorded runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from pytest_mltd.core.findings import Finding, Table
from pytest_mltd.core.rendering import headline
from pytest_mltd.core.trials import Condition, Outcome, settled

Attempt = Callable[[Condition], Outcome]
Compare = Callable[[str, str], Finding]
Verdict = Literal["once", "same", "differs", "flaky", "stopped", "undecided"]

# A measurement of time or memory is never the same twice, and says nothing about the training.
MEASURED = re.compile(r"latency|memory|seconds|duration|throughput|_ms$", re.IGNORECASE)
REGRESSION = "metrics.regression"  # its amount may be a latency's; the metrics it was asked about are in its details


@dataclass(frozen=True, slots=True, kw_only=True)
class Repro:
    """What came of running a test again.

    ``verdict``: "once" (not worth a second run), "same", "differs" (the outcome is the same, what led to it is not), "flaky"
    (the outcomes differ), "stopped" (a run was about to change a file that was there before), "undecided" (a run told nothing).
    ``difference`` is the first difference. ``hash_seed`` is True when the difference follows Python's hash seed, False when
    it was found not to, None when that was not asked. ``compared`` is how many recorded runs were compared bit for bit, and
    ``uncompared`` why others were not; ``only_steps`` to how many steps they reach where a program went on after its
    recording was full, else 0. ``said_alike`` is False when two equal failures have other numbers in their messages.
    """

    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    difference: Finding | None = None
    hash_seed: bool | None = None
    compared: int = 0
    uncompared: str = ""
    only_steps: int = 0
    said_alike: bool = True

    @property
    def ok(self) -> bool:
        """The test passed, as often as it ran and in the same way."""
        return self.verdict in ("once", "same") and self.outcomes[0].kind in ("passed", "skipped")

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        first, *later = self.outcomes
        kinds = " then ".join(outcome.kind for outcome in self.outcomes[:2])
        if self.verdict == "once":
            return f"{first.kind}, run once"
        if self.verdict == "stopped":
            wrote = _first(o.wrote for o in self.outcomes)
            if wrote in first.changed:
                return f"run 1 changed {wrote!r}, which was there before; run 2 was stopped before it did so again"
            return f"stopped: it was about to change {wrote!r}, which was there before"
        if self.verdict == "undecided":
            return f"not compared: {_first(o.reason for o in self.outcomes if o.kind == 'undecided')}"
        if self.verdict == "same":
            word = "reproduced" if first.kind == "failed" else first.kind
            return f"{word} {1 + len(later)} of {1 + len(later)}{self._how_exactly}"
        where = f": {self.difference.headline}" if self.difference is not None else ""
        if self.verdict == "differs":
            return f"{first.kind} 2 of 2, but not bit for bit{where}"
        if first.kind == later[0].kind:
            what = "failure" if first.kind == "failed" else "parts"
            return f"flaky: {first.kind} twice, not with the same {what}{where}"
        return f"flaky: {kinds}{where}"

    @property
    def _how_exactly(self) -> str:
        exactly = "bit for bit" + (f" in the first {self.only_steps} steps" if self.only_steps else "")
        if not self.said_alike:
            agree = f"the recorded runs agree {exactly}, " if self.compared else ""
            return f"; {agree}the numbers in the message differ"
        return f", {exactly}" if self.compared else f", outcome and findings; {self.uncompared}"


def is_worth_it(outcome: Outcome) -> bool:
    """Whether a test showed, by recording a run or asking a check, that a second run can tell something."""
    return bool(outcome.traces or outcome.asked) and outcome.kind in ("passed", "failed")


def repro(
    attempt: Attempt, condition: Condition, *, compare: Compare, worth: Callable[[Outcome], bool] = is_worth_it
) -> Repro:
    """Run a test, and if that is worth it run it again from the same state; say whether it was the same.

    In fresh interpreters the two runs get different hash seeds, unless the condition names one. When they differ, a third run
    with the first one's hash seed tells whether that is why.

    Args:
        attempt: runs the test once; both runs must start from the same state.
        condition: imposed on both.
        compare: judges two recorded runs, by the paths in `Outcome.traces`; a failing finding says where they differ. Where a
            program went on after its recording was full, the finding's details have the number of ``recorded_steps``.
        worth: whether the first outcome asks for a second run.
    """
    first_condition, second_condition = _hash_seeds(condition)
    first = attempt(first_condition)
    if first.wrote:
        return Repro(verdict="stopped", outcomes=(first,))
    if first.kind == "undecided":
        return Repro(verdict="undecided", outcomes=(first,))
    if not worth(first):
        return Repro(verdict="once", outcomes=(first,))
    seen = judge(first, attempt(second_condition), compare)
    if seen.verdict in ("differs", "flaky") and first_condition.hash_seed != second_condition.hash_seed:
        third = attempt(first_condition)
        return replace(seen, hash_seed=judge(first, third, compare).verdict == "same")
    return seen


def judge(first: Outcome, second: Outcome, compare: Compare) -> Repro:
    """Compare two outcomes of one test under one condition."""
    outcomes = (first, second)
    if second.wrote:
        return Repro(verdict="stopped", outcomes=outcomes)
    if second.kind == "undecided":
        return Repro(verdict="undecided", outcomes=outcomes)
    findings = [compare(one, other) for one, other in zip(first.traces, second.traces, strict=False)]
    asked = [f for f in findings if f.asked]
    uncompared = _first(f.headline for f in findings if not f.asked) or "no run was recorded to compare bit for bit"
    difference = _first_difference(first, second, findings)
    verdict: Verdict = "differs" if difference is not None else "same"
    if first.kind != second.kind or first.fingerprint != second.fingerprint:
        verdict = "flaky"
    return Repro(
        verdict=verdict,
        outcomes=outcomes,
        difference=difference,
        compared=len(asked),
        uncompared=uncompared,
        only_steps=min((f.details["recorded_steps"] for f in asked if "recorded_steps" in f.details), default=0),
        said_alike=_said_alike(first, second),
    )


def _said_alike(first: Outcome, second: Outcome) -> bool:
    """Whether two failures have the same numbers in their messages. Those of findings are compared as findings are: with them
    a message says what the machine took for it, too."""
    if first.text.startswith("CheckFailed:") and any(f.failed for f in first.findings):
        return True
    return settled(first.text) == settled(second.text)


def _hash_seeds(condition: Condition) -> tuple[Condition, Condition]:
    if condition.interpreter != "fresh" or condition.hash_seed is not None:
        return condition, condition
    return replace(condition, hash_seed=1), replace(condition, hash_seed=2)


def _first_difference(first: Outcome, second: Outcome, compared: list[Finding]) -> Finding | None:
    for finding in compared:
        if finding.failed:
            return finding
    if len(first.traces) != len(second.traces):
        return _difference(
            f"the first run of the test recorded {len(first.traces)} runs, the second {len(second.traces)}",
            ("recorded runs", len(first.traces), len(second.traces)),
            "the number of recorded runs",
        )
    return _differing_findings(first, second)


def _differing_findings(first: Outcome, second: Outcome) -> Finding | None:
    for one, other in zip(first.findings, second.findings, strict=False):
        if _essence(one) != _essence(other):
            amounts = (one.amount, other.amount) if one.amount != other.amount else (_said(one), _said(other))
            return _difference(
                f"{one.id or 'a finding'} is not the same in both runs: {_said(one)}; then {_said(other)}",
                (one.id, *amounts),
                one.id or "a finding",
            )
    if len(first.findings) != len(second.findings):
        return _difference(
            f"the first run asked {len(first.findings)} questions, the second {len(second.findings)}",
            ("questions asked", len(first.findings), len(second.findings)),
            "the number of questions asked",
        )
    return None


def _essence(finding: Finding) -> tuple[object, ...]:
    amount = None if MEASURED.search(finding.id) or finding.id == REGRESSION else repr(finding.amount)
    metrics = repr(_learned(finding.details.get("current"))) if finding.id == REGRESSION else ""
    return (finding.id, finding.ok, finding.asked, finding.culprit, finding.step, amount, metrics)


def _learned(metrics: object) -> object:
    """Return metrics without those that a clock or the machine decides."""
    if not isinstance(metrics, dict):
        return metrics
    return {name: _learned(value) for name, value in metrics.items() if not MEASURED.search(str(name))}


def _said(finding: Finding) -> str:
    return headline(finding)[:100]


def _difference(text: str, row: tuple[str, object, object], culprit: str) -> Finding:
    return Finding(
        ok=False,
        id="runs.divergence",
        headline=text,
        culprit=culprit,
        table=Table(("what", "run 1", "run 2"), (row,), 0),  # type: ignore[arg-type]
        next_step="look for what differs between two runs: a clock, an unseeded generator, the order of a set, a file",
    )


def _first(texts: object) -> str:
    return next((t for t in texts if t), "")  # type: ignore[attr-defined]
