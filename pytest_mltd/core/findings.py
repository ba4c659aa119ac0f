"""What a check saw (`Finding`), what an umbrella saw (`Diagnosis`), and how a broken property is raised (`CheckFailed`).

Values first, text last: everything here is a frozen value of plain data; ``str()`` of a value is its message.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from pytest_mltd.core import rendering

EvidenceKind = Literal["inference", "report", "research", "observation", "definition"]
Plain = bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A small table that goes with a finding: column heads, rows of plain values, and which row is the culprit.

    Numbers are kept as numbers (so that JSON has them) and formatted only when printed.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Plain, ...], ...]
    culprit: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(str(c) for c in self.columns))
        object.__setattr__(self, "rows", tuple(tuple(plain(v) for v in row) for row in self.rows))
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows: a row has {len(row)} cells, the table has {len(self.columns)} columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check saw.

    ``ok`` is False only when the property is broken; ``asked`` is False when there was nothing to examine (then ``headline``
    is the reason, and neither pass nor fail is claimed). ``id`` is ``family.fault`` and is stamped by the ``check``
    decorator, as are ``explains`` (ids or patterns of the findings that are symptoms of this one) and ``rank`` (causes
    have low numbers). ``step`` is the optimizer step from which on the property is broken. ``amount`` is what was
    measured and ``limit`` the argument it was held against, by name.
    """

    ok: bool
    headline: str
    id: str = ""
    asked: bool = True
    culprit: str = ""
    amount: float | None = None
    limit: tuple[str, float] | None = None
    step: int | None = None
    table: Table | None = None
    shows: str = ""
    next_step: str = ""
    looked_at: str = ""
    evidence: EvidenceKind = "observation"
    allowed: tuple[tuple[str, str], ...] = ()
    explains: tuple[str, ...] = ()
    rank: int = 50
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.evidence not in get_args(EvidenceKind):
            raise ValueError(f"evidence: {self.evidence!r} is none of {', '.join(get_args(EvidenceKind))}")
        object.__setattr__(self, "ok", bool(self.ok))
        object.__setattr__(self, "culprit", str(self.culprit))
        object.__setattr__(self, "amount", None if self.amount is None else float(self.amount))
        if self.limit is not None:
            object.__setattr__(self, "limit", (str(self.limit[0]), float(self.limit[1])))
        object.__setattr__(self, "step", None if self.step is None else int(self.step))
        object.__setattr__(self, "details", {str(k): plain(v) for k, v in self.details.items()})

    @property
    def failed(self) -> bool:
        """The question was asked and the property is broken."""
        return self.asked and not self.ok

    def __str__(self) -> str:
        return rendering.finding_text(self)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `finding_from_dict` is the way back. Non-finite numbers become strings."""
        return _as_plain(self)

    def as_annotation(self, file: str | None = None, line: int | None = None) -> str:
        """Return the line that GitHub Actions and its relatives show beside the code."""
        return rendering.annotation(self, file, line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The findings of one umbrella, asked together.

    ``findings`` holds every finding that was asked; ``not_asked`` those that could not be, each with its reason as
    headline. ``failed`` lists the failing findings with the root cause first; `roots` and `symptoms_of` tell which
    explains which. ``crashed`` is the sentence of what ended the program, where it was an error: a run that raised is not
    called healthy, whatever its findings.
    """

    about: str
    findings: tuple[Finding, ...] = ()
    not_asked: tuple[Finding, ...] = ()
    looked_at: str = ""
    notes: tuple[str, ...] = ()
    crashed: str = ""

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The failing findings: each root cause, then what it explains."""
        return tuple(f for root, symptoms in _grouped(self.findings) for f in (root, *symptoms))

    @property
    def roots(self) -> tuple[Finding, ...]:
        """The failing findings that no other failing finding explains, causes first, then by step."""
        return tuple(root for root, _ in _grouped(self.findings))

    def symptoms_of(self, root: Finding) -> tuple[Finding, ...]:
        """The failing findings that ``root`` is the first to explain, directly or through another symptom."""
        return next((symptoms for found, symptoms in _grouped(self.findings) if found is root), ())

    @property
    def allowed(self) -> tuple[tuple[str, str, str], ...]:
        """What a person allowed: (finding id, place, reason)."""
        return tuple((f.id, place, reason) for f in self.findings for place, reason in f.allowed)

    def __str__(self) -> str:
        return rendering.diagnosis_text(self)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `diagnosis_from_dict` is the way back."""
        return {
            "about": self.about,
            "ok": self.ok,
            "looked_at": self.looked_at,
            "notes": list(self.notes),
            "crashed": self.crashed,
            "findings": [f.as_dict() for f in self.findings],
            "not_asked": [f.as_dict() for f in self.not_asked],
            "failed": [f.id for f in self.failed],
        }


class CheckFailed(AssertionError):
    """A property was asked for and is broken. ``findings`` holds the failing findings, root cause first."""

    # pytest prints the module of an exception before its name, except for built-in ones. The short summary line has
    # room for the headline only if that prefix is gone; pickling goes through `_rebuild_failure` and stays possible.
    __module__ = "builtins"

    def __init__(self, message: str, findings: Iterable[Finding] = ()) -> None:
        super().__init__(message)
        self.findings: tuple[Finding, ...] = tuple(findings)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_failure, (isinstance(self, NotAsked), str(self), self.findings)


class NotAsked(CheckFailed):
    """A single question was asserted, and there was nothing to examine: not a pass."""

    __module__ = "builtins"


def not_asked(reason: str, *, next_step: str = "", looked_at: str = "") -> Finding:
    """Return the finding of a question that could not be asked: nothing examined is not a pass."""
    return Finding(ok=True, asked=False, headline=reason, next_step=next_step, looked_at=looked_at)


def no_occasion(reason: str, *, looked_at: str = "") -> Finding:
    """Return the finding of a question that this program gives no occasion for, as of loss scales where there is no scaler.

    No longer or better recording would let it be asked, so a diagnosis only counts it.
    """
    return replace(not_asked(reason, looked_at=looked_at), details={"occasion": False})


def raise_if_failed(result: Finding | Diagnosis) -> None:
    """Raise `CheckFailed` (or `NotAsked`, for a single finding that could not be asked) with the whole message."""
    __tracebackhide__ = True
    if isinstance(result, Diagnosis):
        if not result.ok:
            raise CheckFailed(str(result), result.failed)
        if not result.findings:
            raise NotAsked(str(result), result.not_asked)
    elif not result.asked:
        raise NotAsked(str(result), (result,))
    elif not result.ok:
        raise CheckFailed(str(result), (result,))


def diagnose_findings(
    about: str,
    findings: Iterable[Finding],
    *,
    looked_at: str = "",
    notes: Sequence[str] = (),
    crashed: str = "",
) -> Diagnosis:
    """Sort findings into those asked and those not, and return the diagnosis."""
    everything = tuple(findings)
    return Diagnosis(
        about=about,
        findings=tuple(f for f in everything if f.asked),
        not_asked=tuple(f for f in everything if not f.asked),
        looked_at=looked_at,
        notes=tuple(notes),
        crashed=crashed,
    )


def finding_from_dict(data: Mapping[str, Any]) -> Finding:
    """Return the finding that `Finding.as_dict` wrote. Unknown keys, from a newer version, are left out.

    Raises:
        ValueError: a key that every finding has is missing.
    """
    known = {f.name for f in fields(Finding)}
    try:
        values = {k: v for k, v in data.items() if k in known}
        if values.get("table") is not None:
            table = values["table"]
            rows = tuple(tuple(_from_plain(v) for v in row) for row in table["rows"])
            values["table"] = Table(tuple(table["columns"]), rows, table.get("culprit"))
        for name in ("allowed", "explains"):
            values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values.get(name, ()))
        if values.get("limit") is not None:
            values["limit"] = (str(values["limit"][0]), float(values["limit"][1]))
        if values.get("amount") is not None:
            values["amount"] = float(values["amount"])
        return Finding(**values)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"data: not a finding ({error})") from error


def diagnosis_from_dict(data: Mapping[str, Any]) -> Diagnosis:
    """Return the diagnosis that `Diagnosis.as_dict` wrote."""
    return Diagnosis(
        about=str(data.get("about", "")),
        findings=tuple(finding_from_dict(f) for f in data.get("findings", ())),
        not_asked=tuple(finding_from_dict(f) for f in data.get("not_asked", ())),
        looked_at=str(data.get("looked_at", "")),
        notes=tuple(str(n) for n in data.get("notes", ())),
        crashed=str(data.get("crashed", "")),
    )


def plain(value: Any) -> Any:
    """Return a value as plain data: numpy scalars become Python's own, anything unknown becomes its text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        # A subclass (numpy.float64 is a float, an enum may be an int) would carry its own repr into the text.
        for kind in (bool, int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return None
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        unpacked = value.item()
        return plain(unpacked) if type(unpacked) is not type(value) else float(unpacked)  # longdouble gives itself
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    return str(value)


def _as_plain(finding: Finding) -> dict[str, Any]:
    data: dict[str, Any] = {f.name: getattr(finding, f.name) for f in fields(finding)}
    if finding.table is not None:
        table = finding.table
        data["table"] = {"columns": list(table.columns), "rows": table.rows, "culprit": table.culprit}
    return {key: _jsonable(value) for key, value in data.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN; float("nan") reads it back
    if isinstance(value, Mapping):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value


def _from_plain(value: Any) -> Any:
    return float(value) if value in ("nan", "inf", "-inf") else value


def _rebuild_failure(unasked: bool, message: str, findings: tuple[Finding, ...]) -> CheckFailed:
    return (NotAsked if unasked else CheckFailed)(message, findings)


def _causes_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    failing = [f for f in findings if f.failed]
    return tuple(sorted(failing, key=lambda f: (f.rank, math.inf if f.step is None else f.step)))


def _explains(cause: Finding, symptom: Finding) -> bool:
    """A cause explains the findings it names, unless they began before it did."""
    if cause is symptom or not any(fnmatch.fnmatchcase(symptom.id, pattern) for pattern in cause.explains):
        return False
    return cause.step is None or symptom.step is None or cause.step <= symptom.step


def _grouped(findings: Iterable[Finding]) -> list[tuple[Finding, tuple[Finding, ...]]]:
    """Return each root cause with what it explains; every failing finding is in exactly one group."""
    failing = _causes_first(findings)
    explained = {id(s) for f in failing for s in failing if _explains(f, s)}
    unexplained = [f for f in failing if id(f) not in explained]
    groups: dict[int, tuple[Finding, tuple[Finding, ...]]] = {}
    taken = {id(f) for f in unexplained}
    # Findings that explain each other in a ring have no root among them: the first of them that is left becomes one.
    for root in (*unexplained, *failing):
        if id(root) in groups or (id(root) in taken and id(root) in explained):
            continue
        symptoms = _reach(root, failing, taken)
        taken |= {id(root), *(id(f) for f in symptoms)}
        groups[id(root)] = (root, symptoms)
    return [groups[id(f)] for f in failing if id(f) in groups]


def _reach(root: Finding, failing: Sequence[Finding], taken: set[int]) -> tuple[Finding, ...]:
    """Return what ``root`` explains, directly or through another symptom, in the order of ``failing``."""
    reached = {id(root)}
    grew = True
    while grew:
        new = {id(s) for f in failing if id(f) in reached for s in failing if _explains(f, s)} - reached - taken
        grew = bool(new)
        reached |= new
    return tuple(f for f in failing if id(f) in reached and f is not root)


def with_limit_origin(finding: Finding, origin: str) -> Finding:
    """Return the finding with a word on where a limit came from (the project's own ini key, say)."""
    if finding.failed:  # what was looked at is said of passing findings only
        return replace(finding, shows=f"{finding.shows} Limit: {origin}." if finding.shows else f"Limit: {origin}.")
    return replace(finding, looked_at=f"{finding.looked_at}; {origin}" if finding.looked_at else origin)
