"""What was seen of an incident (`Evidence`), what is claimed (`Hypothesis`), and the whole (`Incident`).

Evidence is written once and never changed. Status and confidence are computed from it each time they are asked
(`core/folding.py`), so that no file can claim what nobody saw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from pytest_mltd.core import folding
from pytest_mltd.core.confidence import capped
from pytest_mltd.core.findings import Finding, finding_from_dict, plain
from pytest_mltd.core.folding import Confidence, Fold, Status
from pytest_mltd.core.trials import Condition, Outcome, OutcomeKind

MAX_TEXT = 4_000  # characters of a failure's text that are kept; a record is read by people and kept in git
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
TEXTS = "claim family fingerprint reason text fault test_digest commit committed branch tree code time".split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One outcome of one test, worth remembering.

    ``findings`` are all findings the test asked, passing ones too. ``metrics`` maps "split/metric" to a number or the
    numbers of several seeds. ``seed``, ``slice`` and ``steps`` are the condition it ran under; ``fault`` names a fault
    planted on purpose (such a record proves the monitor and says nothing about the incident). ``runs`` is how often the
    test ran for this record and ``agreed`` whether those runs were the same bit for bit. ``test_digest`` is of the
    test's own source; ``asked_nothing`` marks a pass in which no check was asked, no run recorded and nothing asserted.
    ``commit`` with ``tree`` (a digest of what differs from it, or of the code where there is no git) is
    the state of the code, ``committed`` the commit's time; ``code`` is a digest of the files themselves, the same in two
    commits between which no code changed. Times are UTC, ISO 8601.
    """

    incident: str
    hypothesis: str
    nodeid: str
    kind: OutcomeKind
    claim: str = ""
    family: str = ""
    fingerprint: str = ""
    reason: str = ""
    text: str = ""
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    slice: int | None = None
    steps: int | None = None
    fault: str = ""
    runs: int = 1
    agreed: bool = True
    test_digest: str = ""
    asked_nothing: bool = False
    commit: str = ""
    committed: str = ""
    branch: str = ""
    dirty: bool = False
    tree: str = ""
    code: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(OutcomeKind):
            raise ValueError(f"kind: {self.kind!r} is none of {', '.join(get_args(OutcomeKind))}")
        for name in ("incident", "hypothesis"):
            check_name(getattr(self, name), name)
        object.__setattr__(self, "text", self.text[:MAX_TEXT])
        object.__setattr__(self, "runs", max(1, self.runs))
        object.__setattr__(self, "metrics", {str(k): plain(v) for k, v in self.metrics.items()})
        object.__setattr__(self, "environment", {str(k): plain(v) for k, v in self.environment.items()})

    @property
    def state(self) -> str:
        """The state of the code as one word: commit and digest of what differs from it; "" when neither is known."""
        return f"{self.commit}+{self.tree}" if self.commit or self.tree else ""

    @property
    def condition(self) -> tuple[int | None, int | None, int | None]:
        """Seed, slice and steps: outcomes under another condition are not compared as if it were the same."""
        return (self.seed, self.slice, self.steps)

    @property
    def failed_findings(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.failed)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `evidence_from_dict` is the way back. Non-finite numbers become strings."""
        data: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        data["findings"] = [f.as_dict() for f in self.findings]
        data["metrics"] = _jsonable(self.metrics)
        data["environment"] = _jsonable(self.environment)
        return data


def evidence_of(
    outcome: Outcome,
    condition: Condition,
    facts: Mapping[str, Any],
    *,
    id: str,
    nodeid: str,
    claim: str = "",
    family: str = "",
    runs: int = 1,
    agreed: bool = True,
    test_digest: str = "",
    metrics: Mapping[str, Any] | None = None,
    asked_nothing: bool = False,
) -> Evidence:
    """Return the evidence of one outcome.

    Args:
        outcome: how the test ended; its findings should be all that were asked.
        condition: what was imposed on the test.
        facts: what `ledger.provenance.provenance` returned.
        id: the marker's first argument, "incident/hypothesis".
        nodeid: the test's, relative to pytest's root.
        claim: the hypothesis in words.
        family: its family, "label leakage" say (PROCEDURE, section 3).
        runs: how often the test ran for this outcome.
        agreed: False when those runs differed.
        test_digest: digest of the test's own source.
        metrics: numbers to keep beside those that `check_regression` was asked about.
        asked_nothing: the test passed and held nothing that could have failed.

    Raises:
        ValueError: ``id`` is not of the form "incident/hypothesis".
    """
    incident, hypothesis = parse_marker(id)
    known = {f.name for f in fields(Evidence)}
    return Evidence(
        incident=incident,
        hypothesis=hypothesis,
        nodeid=nodeid,
        kind=outcome.kind,
        claim=" ".join(claim.split()),
        family=" ".join(family.split()),
        fingerprint=outcome.fingerprint,
        reason=outcome.reason,
        text=outcome.text,
        findings=outcome.findings,
        metrics={**_asked_metrics(outcome.findings), **(metrics or {})},
        seed=condition.seed,
        slice=condition.slice,
        steps=condition.steps,
        fault=condition.fault or "",
        runs=runs,
        agreed=agreed,
        test_digest=test_digest,
        asked_nothing=asked_nothing,
        **{k: v for k, v in facts.items() if k in known},
    )


def evidence_from_dict(data: Any) -> Evidence:
    """Return the evidence that `Evidence.as_dict` wrote. Unknown keys are left out; everything else is checked.

    Raises:
        ValueError: it is not an evidence record; the text says which entry is wrong.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"data: a record is a mapping, not {type(data).__name__}")
    values = {f.name: data[f.name] for f in fields(Evidence) if f.name in data}
    for name in ("incident", "hypothesis", "nodeid", "kind", *TEXTS):
        if not isinstance(values.get(name, ""), str):
            raise ValueError(f"data: {name!r} is text, not {values[name]!r}")
    for name in ("seed", "slice", "steps"):
        if not isinstance(values.get(name), int | None):
            raise ValueError(f"data: {name!r} is a whole number or null, not {values[name]!r}")
    for name in ("metrics", "environment"):
        if not isinstance(values.get(name, {}), Mapping):
            raise ValueError(f"data: {name!r} is a mapping, not {values[name]!r}")
    for name, kind in (("runs", int), ("agreed", bool), ("dirty", bool), ("asked_nothing", bool)):
        if not isinstance(values.get(name, kind(1)), kind):
            raise ValueError(f"data: {name!r} is {values[name]!r}")
    try:
        values["findings"] = tuple(_finding(f) for f in values.get("findings", ()))
        return Evidence(**values)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"data: not an evidence record ({error})") from error


def _finding(data: Any) -> Finding:
    """Return a finding whose texts are texts: a report sorts and joins them."""
    if not isinstance(data, Mapping):
        raise ValueError(f"data: a finding is a mapping, not {type(data).__name__}")
    for name in ("id", "headline", "culprit", "shows", "next_step", "looked_at"):
        if not isinstance(data.get(name, ""), str):
            raise ValueError(f"data: a finding's {name!r} is text, not {data[name]!r}")
    for name, kind in (("ok", bool), ("asked", bool), ("rank", int)):
        if not isinstance(data.get(name, kind(1)), kind):
            raise ValueError(f"data: a finding's {name!r} is {data[name]!r}")
    return finding_from_dict(data)


def parse_marker(id: object) -> tuple[str, str]:
    """Return incident and hypothesis of "loan-leak/H1".

    Raises:
        ValueError: it is not two names joined by one slash.
    """
    incident, slash, hypothesis = id.partition("/") if isinstance(id, str) else ("", "", "")
    if not slash or not NAME.fullmatch(incident) or not NAME.fullmatch(hypothesis):
        raise ValueError(
            f'id: "incident/hypothesis" is needed, as in mltd("loan-leak/H1"), of letters, digits, ".", "-", "_", not {id!r}'
        )
    return incident, hypothesis


def check_name(name: object, argument: str = "incident") -> str:
    """Return the name of an incident or hypothesis, which is also a file's name, or say what is wrong with it.

    Raises:
        ValueError: it could not be a file's name on every system, or leads out of the folder.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f'{argument}: at most 80 letters, digits, ".", "-", "_" make a name, a letter or digit first, not {name!r}'
        )
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What only people know of an incident: written by hand beside the ledger, every entry optional.

    ``owners`` maps a hypothesis ("H1"), a test's name or pattern, or "*" to a name. ``lowered`` maps a hypothesis to a
    confidence and the reason for lowering it.
    """

    summary: str = ""
    impact: str = ""
    constraints: Mapping[str, str] = field(default_factory=dict)
    baseline: str = ""
    expected: str = ""
    started: str = ""
    detected: str = ""
    mitigated: str = ""
    root_cause: str = ""
    trigger: str = ""
    contributing: tuple[str, ...] = ()
    fix: str = ""
    remaining_risks: tuple[str, ...] = ()
    rollback: str = ""
    rollback_tried: str = ""
    prevention: tuple[str, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)
    lowered: Mapping[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """A claim with all its evidence, in the order it was recorded.

    ``witnesses`` maps states of the code to another hypothesis of the incident that was seen failing there: on such a state a
    test that passes refutes. ``newest`` is the newest state of which the incident has evidence. ``lowered`` is a person's
    own, lower confidence with its reason.
    """

    id: str
    evidence: tuple[Evidence, ...]
    witnesses: Mapping[str, str] = field(default_factory=dict)
    newest: str = ""
    lowered: tuple[float, str] | None = None

    @property
    def claim(self) -> str:
        """The claim as last stated."""
        return next((e.claim for e in reversed(self.evidence) if e.claim), "")

    @property
    def family(self) -> str:
        return next((e.family for e in reversed(self.evidence) if e.family), "")

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that stand for it, in the order they first ran."""
        return tuple(dict.fromkeys(e.nodeid for e in self.evidence))

    @property
    def folded(self) -> Fold:
        """Status, why, and what else deserves to be known."""
        return folding.fold(self.evidence, self.witnesses, self.newest)

    @property
    def status(self) -> Status:
        return self.folded.status

    @property
    def confidence(self) -> Confidence:
        """How sure the status is, under its ceiling and with the reasons."""
        computed = folding.confidence(self.folded)
        return computed if self.lowered is None else _lower(computed, *self.lowered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """An incident: its evidence in recorded order, and the confidences that people lowered, by hypothesis."""

    name: str
    evidence: tuple[Evidence, ...] = ()
    lowered: Mapping[str, tuple[float, str]] = field(default_factory=dict)

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """Every hypothesis that has evidence, in the order of their names (H2 before H10)."""
        by_id: dict[str, list[Evidence]] = {}
        for e in self.evidence:
            by_id.setdefault(e.hypothesis, []).append(e)
        states = folding.states_in_order(self.evidence)
        return tuple(
            Hypothesis(
                id=name,
                evidence=tuple(by_id[name]),
                witnesses=folding.witnesses(self.evidence, besides=name),
                newest=states[-1] if states else "",
                lowered=self.lowered.get(name),
            )
            for name in sorted(by_id, key=_natural)
        )

    def hypothesis(self, id: str) -> Hypothesis:
        """Return one hypothesis.

        Raises:
            ValueError: it has no evidence.
        """
        found = {h.id: h for h in self.hypotheses}
        if id not in found:
            raise ValueError(f"id: {self.name} has no evidence for {id!r}; it has {', '.join(found) or 'none at all'}")
        return found[id]


def incident_from(
    name: str, evidence: Iterable[Evidence], lowered: Mapping[str, tuple[float, str]] | None = None
) -> Incident:
    """Return the incident of that name out of evidence that may belong to several."""
    return Incident(
        name=check_name(name),
        evidence=tuple(e for e in evidence if e.incident == name),
        lowered=dict(lowered or {}),
    )


def _lower(computed: Confidence, wanted: float, reason: str) -> Confidence:
    """Apply a person's own confidence: down with a reason, never up."""
    value = min(capped(wanted, [computed.kind]), computed.value) if computed.kind else computed.value
    if value < computed.value:
        said = f"lowered from {computed.value:.2f} by a person: {reason}"
    else:
        said = f"a person asked for {wanted:.2f}; nobody can raise it above what was computed"
    return Confidence(value, computed.ceiling, computed.kind, (*computed.reasons, said))


def _asked_metrics(findings: Iterable[Finding]) -> dict[str, Any]:
    """Collect the numbers that metric checks were asked about."""
    found: dict[str, Any] = {}
    for finding in findings:
        current = finding.details.get("current") if finding.id.startswith("metrics.") else None
        if isinstance(current, Mapping):
            found.update(current)
    return found


def _natural(name: str) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN
    if isinstance(value, Mapping):
        return {k: _jsonable(v) for k, v in value.items()}
    return [_jsonable(v) for v in value] if isinstance(value, list) else value
