"""What one trial changes (`Condition`), how it ended (`Outcome`), and the condition in force right now.

The plugin puts a condition in force around a test (`under`); the recorder and `run` read their defaults from it. Findings and
traces made meanwhile are overheard (`observing`), so that what a test did is known by its doing and not by a marker.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pytest_mltd.core import asking
from pytest_mltd.core.findings import Diagnosis, Finding, finding_from_dict

if TYPE_CHECKING:
    from pytest_mltd.core.traces import Trace

Interpreter = Literal["here", "fork", "fresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What one trial changes against a plain run of the same test.

    ``seed`` is set before the test; None leaves the random state alone. ``steps`` is how many optimizer steps `run` lets
    happen and a recording keeps. ``slice`` is how many samples of each DataLoader are used. ``exact`` asks for digests at
    every step. ``fault`` names a fault to plant, ``tree`` a folder to import the code from, ``hash_seed`` the child's
    PYTHONHASHSEED, ``settings`` an overlay for the test's own settings.
    """

    seed: int | None = None
    steps: int | None = None
    slice: int | None = None
    exact: bool = False
    fault: str | None = None
    tree: str | None = None
    interpreter: Interpreter = "here"
    hash_seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("steps", "slice"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: at least 1 is needed, not {value!r}")


OutcomeKind = Literal["passed", "failed", "skipped", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended. ``fingerprint`` says which failure it was, so that another failure is not taken for the same.

    ``traces`` are the files of the recorded runs, in the order they ended. ``reason`` says why a trial is undecided or
    skipped. ``text`` is the failure as a person reads it. ``wrote`` names a file that was there before and that the trial was
    kept from changing; ``changed`` those that it did change, as nothing forbade it yet.
    """

    kind: OutcomeKind
    fingerprint: str = ""
    reason: str = ""
    text: str = ""
    findings: tuple[Finding, ...] = ()
    traces: tuple[str, ...] = ()
    asked: int = 0
    wrote: str = ""
    changed: tuple[str, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `outcome_from_dict` is the way back."""
        data = {name: getattr(self, name) for name in self.__slots__}
        return {
            **data,
            "findings": [f.as_dict() for f in self.findings],
            "traces": list(self.traces),
            "changed": list(self.changed),
        }


def outcome_from_dict(data: Mapping[str, Any]) -> Outcome:
    """Return the outcome that `Outcome.as_dict` wrote."""
    values = {k: v for k, v in data.items() if k in Outcome.__slots__}
    values["findings"] = tuple(finding_from_dict(f) for f in values.get("findings", ()))
    for name in ("traces", "changed"):
        values[name] = tuple(values.get(name, ()))
    return Outcome(**values)


def fingerprint(error_type: str, message: str, where: str) -> str:
    """Return sixteen hex digits that stay the same while the failure does.

    Counts, measurements, addresses and the folders of paths are left out of the message: they move between two runs of one
    failure. A digit that is part of a name stays: ``layers.0.weight`` and ``layers.1.weight`` are two failures.
    ``where`` is the place in the user's code, as ``path::function``.
    """
    text = re.sub(r"(?<![\w.])[-+]?\d[\d_,.]*(?:[eE][-+]?\d+)?", "0", _placeless(message))
    # A file's name in it may hold a lone surrogate.
    whole = f"{error_type}\n{text}\n{where}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(whole).hexdigest()[:16]


def settled(message: str) -> str:
    """Return a message without what is never the same twice: addresses, folders of paths, times of day and durations."""
    text = re.sub(r"\d{4}-\d\d-\d\d|\d{1,2}:\d\d(:\d\d([.,]\d+)?)?|\b1\d{9}(\.\d+)?\b", "0", _placeless(message))
    text = text.replace("0T0", "0 0")
    return re.sub(r"\d[\d_,.]*(e-?\d+)?(?=\s?([mun\u00b5\u03bc]?s|secs?|seconds?|min|minutes?)\b)", "0", text)


def _placeless(message: str) -> str:
    text = re.sub(r"0x[0-9a-fA-F]+", "0x", message)
    text = re.sub(r"(/[\w.@+-]+)+", lambda m: m.group().rsplit("/", 1)[-1], text)
    return re.sub(r"\btmp[a-z0-9_]{8}\b", "tmp", text)  # what the tempfile module makes up


def words_of(error: BaseException) -> str:
    """Return what an error says; nothing where its own ``__str__`` raises, so that a trial can end all the same."""
    try:
        return str(error)
    except Exception:
        return ""


@dataclass(slots=True)
class Observed:
    """What happened in a block: findings and diagnoses asked, traces recorded. Filled while the block runs."""

    asked: list[Finding | Diagnosis] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding asked, those of a diagnosis included."""
        return tuple(
            f for result in self.asked for f in (result.findings if isinstance(result, Diagnosis) else (result,))
        )


_condition = Condition()
_recorded: list[Callable[[Trace], None]] = []


@contextlib.contextmanager
def under(condition: Condition) -> Iterator[None]:
    """Put a condition in force for the block. One process tries one condition at a time."""
    global _condition
    old, _condition = _condition, condition
    try:
        yield
    finally:
        _condition = old


def current_condition() -> Condition:
    """Return the condition in force; a plain `Condition` when nothing is being tried."""
    return _condition


@contextlib.contextmanager
def observing() -> Iterator[Observed]:
    """Overhear what is asked and recorded in the block."""
    seen = Observed()
    heard = seen.traces.append
    _recorded.append(heard)
    try:
        with asking.listening(seen.asked):
            yield seen
    finally:
        _recorded.remove(heard)


def note_trace(trace: Trace) -> None:
    """Tell whoever observes that a recording has ended. Called by the recorder."""
    for heard in tuple(_recorded):
        heard(trace)
