"""How a question is asked: the `check` decorator, its `asserting` twin, what a project allows, and who is listening.

A check is a function of this shape; the decorator stamps the id from the module's and the function's name::

    @check("run", explains=("losses.*",))
    def check_explosion(run, *, max_growth: float = 50.0, allow=None) -> Finding: ...

    assert_no_explosion = asserting(check_explosion)

Nothing else is edited to add one: `discover` finds it in its file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fnmatch
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, ParamSpec, TypeVar

from pytest_mltd.core.extras import MissingExtra
from pytest_mltd.core.findings import Diagnosis, Finding, not_asked, raise_if_failed, with_limit_origin

P = ParamSpec("P")
R = TypeVar("R", Finding, Diagnosis)
Subject = Literal["run", "two runs", "splits", "table", "pipeline", "model", "training", "metrics"]


@dataclass(frozen=True, slots=True)
class CheckInfo:
    """What the `check` decorator knows of a question. ``limits`` are its keyword-only numbers with their defaults."""

    id: str
    subject: Subject
    explains: tuple[str, ...]
    rank: int
    limits: Mapping[str, Any]
    takes_allow: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """What a project has decided for all its checks: limits and allowances, each by id.

    ``limits`` maps ``family.fault.argument`` to a number, ``allow`` maps ``family.fault`` or ``family.fault:place``
    (globs) to a reason. An argument given in the call wins over both. ``origin`` is named in the message.
    """

    limits: Mapping[str, float] = field(default_factory=dict)
    allow: Mapping[str, str] = field(default_factory=dict)
    origin: str = "mltd_limits"


_policy = Policy()
_listeners: list[Callable[[Finding | Diagnosis], None]] = []
_depth = threading.local()  # only what the user asked is heard, not what an umbrella asks on the way


def check(
    subject: Subject, *, explains: Iterable[str] = (), rank: int = 50, family: str = ""
) -> Callable[[Callable[P, Finding]], Callable[P, Finding]]:
    """Make a function a check: stamp id, rank and what it explains on its finding, apply the project's policy.

    Args:
        subject: what it is asked of; umbrellas collect by it.
        explains: ids or glob patterns of the findings that are symptoms of this one.
        rank: causes before symptoms; 0 is the nearest to a cause, 50 the middle, 90 a symptom that rarely explains itself.
        family: the id's first word, where it is not the module's own name.
    """

    def decorate(function: Callable[P, Finding]) -> Callable[P, Finding]:
        info = _describe(function, subject, tuple(explains), rank, family)

        @functools.wraps(function)
        def asked(*args: P.args, **kwargs: P.kwargs) -> Finding:
            return _ask(info, function, args, kwargs)

        asked.info = info  # type: ignore[attr-defined]
        return asked

    return decorate


def asserting(function: Callable[P, R], name: str = "") -> Callable[P, None]:
    """Return the twin of a check (or umbrella) that raises `CheckFailed`; same signature, the data comes first.

    ``name`` is needed for an umbrella whose twin is not ``assert_<name>``, as in ``assert_no_leakage``.
    """

    @functools.wraps(function)
    def asserted(*args: P.args, **kwargs: P.kwargs) -> None:
        __tracebackhide__ = True
        raise_if_failed(function(*args, **kwargs))

    fault = function.__name__.removeprefix("check_")
    name = name or (f"assert_no_{fault}" if hasattr(function, "info") else f"assert_{fault}")
    asserted.__name__ = asserted.__qualname__ = name
    asserted.__dict__.pop("info", None)  # copied by `wraps`; the twin is not a check and `discover` must not take it
    asserted.__doc__ = (
        f"Assert what `{function.__name__}` asks; raises `CheckFailed` with its message.\n\n{function.__doc__}"
    )
    asserted.__annotations__ = {**function.__annotations__, "return": "None"}
    asserted.asks = function  # type: ignore[attr-defined]
    return asserted


def umbrella(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function an umbrella: listeners hear its diagnosis once, and none of the findings asked on the way."""

    @functools.wraps(function)
    def asked(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        with _counting_depth():
            result = function(*args, **kwargs)
        _tell(result)
        return result

    return asked


def info(function: Callable[..., Any]) -> CheckInfo:
    """Return what is known of a check.

    Raises:
        TypeError: the function was not made a check by the decorator.
    """
    found = getattr(function, "info", None)
    if not isinstance(found, CheckInfo):
        raise TypeError(f"function: {getattr(function, '__name__', function)!r} is not a check")
    return found


def discover(package: str, *subjects: Subject) -> tuple[Callable[..., Finding], ...]:
    """Return the checks defined in a package's modules (of the given subjects, or all), causes first, then by id."""
    found: dict[str, Callable[..., Finding]] = {}
    for module in modules_of(package):
        for value in vars(module).values():
            known = getattr(value, "info", None)
            if isinstance(known, CheckInfo) and value.__module__ == module.__name__ and hasattr(value, "__wrapped__"):
                if not subjects or known.subject in subjects:
                    found[known.id] = value
    return tuple(sorted(found.values(), key=lambda f: (info(f).rank, info(f).id)))


def modules_of(package: str) -> Iterator[ModuleType]:
    """Yield the modules of a package that define checks, imported, sub-packages included, in the order of their names.

    Files are read for it: the files beside a check may need torch, and to know which checks there are must not load it.
    """
    root = importlib.import_module(package)
    yield root
    for found in sorted(pkgutil.walk_packages(root.__path__, package + "."), key=lambda m: m.name):
        spec = importlib.util.find_spec(found.name)
        if found.ispkg or spec is None or spec.origin is None or b"@check(" in Path(spec.origin).read_bytes():
            yield importlib.import_module(found.name)


@contextlib.contextmanager
def policy(new: Policy) -> Iterator[None]:
    """Hold every check in the block to a project's policy."""
    global _policy
    old, _policy = _policy, new
    try:
        yield
    finally:
        _policy = old


def current_policy() -> Policy:
    """Return the policy in force."""
    return _policy


def asked_now() -> tuple[Subject, ...]:
    """Return of what the questions are asked that are being asked on this thread, the outermost first."""
    return getattr(_depth, "subjects", ())


@contextlib.contextmanager
def listening(heard: list[Finding | Diagnosis]) -> Iterator[None]:
    """Append to ``heard`` each finding or diagnosis that is asked in the block, on any thread."""
    _listeners.append(heard.append)
    try:
        yield
    finally:
        _listeners.remove(heard.append)


def sift(allow: Mapping[str, str] | None, places: Iterable[str]) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """Part places into those to judge and those a person allowed, with the reason. Inside a check, keys are places."""
    kept: list[str] = []
    allowed: list[tuple[str, str]] = []
    for place in places:
        reason = _reason(allow or {}, place)
        if reason is None:
            kept.append(place)
        else:
            allowed.append((place, reason))
    return kept, tuple(allowed)


def check_allow(allow: Mapping[str, str] | None) -> dict[str, str]:
    """Return ``allow`` as a dictionary, or say what is wrong with it.

    Raises:
        TypeError: it is not a mapping of text to text.
        ValueError: a reason is empty.
    """
    if allow is None:
        return {}
    if not isinstance(allow, Mapping):
        raise TypeError(
            f'allow: a mapping of place to reason is needed, as in allow={{"column": "why"}}, not {allow!r}'
        )
    for place, reason in allow.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"allow: {place!r} needs a reason in words, not {reason!r}")
    return {str(k): v for k, v in allow.items()}


def _describe(
    function: Callable[..., Any], subject: Subject, explains: tuple[str, ...], rank: int, family: str
) -> CheckInfo:
    if not function.__name__.startswith("check_"):
        raise TypeError(f"function: a check is named check_<fault>, not {function.__name__!r}")
    parameters = inspect.signature(function).parameters.values()
    limits = {
        p.name: p.default
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and isinstance(p.default, (int, float)) and not isinstance(p.default, bool)
    }
    name = f"{family or function.__module__.rpartition('.')[2]}.{function.__name__.removeprefix('check_')}"
    return CheckInfo(name, subject, explains, rank, limits, any(p.name == "allow" for p in parameters))


def _ask(info: CheckInfo, function: Callable[..., Finding], args: Any, kwargs: Any) -> Finding:
    allow = _narrow(info.id, {**_policy.allow, **check_allow(kwargs.pop("allow", None))})
    if info.takes_allow:
        kwargs["allow"] = allow or None
    overlay = {k: v for k, v in _project_limits(info).items() if k not in kwargs}
    with _counting_depth(info.subject):
        finding = function(*args, **{**kwargs, **overlay})
    finding = dataclasses.replace(finding, id=info.id, explains=info.explains, rank=info.rank)
    reason = _reason(allow, finding.culprit) if finding.failed else None
    if reason is not None:
        finding = dataclasses.replace(finding, ok=True, allowed=(*finding.allowed, (finding.culprit, reason)))
    if overlay:
        finding = with_limit_origin(
            finding, f"{', '.join(f'{k}={v:g}' for k, v in overlay.items())} from {_policy.origin}"
        )
    _tell(finding)
    return finding


def _project_limits(info: CheckInfo) -> dict[str, float]:
    """Return the limits that the project's policy sets for one check.

    Raises:
        ValueError: the policy names a limit that the check does not have, or a fraction for a count.
    """
    limits: dict[str, float] = {}
    for key, value in _policy.limits.items():
        asked, _, name = key.rpartition(".")
        if asked != info.id:
            continue
        if name not in info.limits:
            known = ", ".join(info.limits) or "none"
            raise ValueError(f"{_policy.origin}: {info.id} has no limit {name!r}; it has {known}")
        if isinstance(info.limits[name], int):
            if not float(value).is_integer():
                raise ValueError(f"{_policy.origin}: {key} is a count, not {value!r}")
            value = int(value)
        limits[name] = value
    return limits


def _narrow(id: str, allow: Mapping[str, str]) -> dict[str, str]:
    """Keep what concerns one check: ``family.fault`` allows every place, ``family.fault:place`` one, a bare key is a place.

    A key that is not this check's id is kept as a place: a parameter may be called "model.head.weight" and a column
    "a:b", and the id of another check names no place of this one.
    """
    narrowed: dict[str, str] = {}
    for key, reason in allow.items():
        fault, colon, place = key.partition(":")
        if fnmatch.fnmatchcase(id, fault):
            narrowed[place if colon else "*"] = reason
        else:
            narrowed[key] = reason
    return narrowed


def _reason(allow: Mapping[str, str], place: str) -> str | None:
    if place in allow:  # a plain name first: a column may be called "a[0]", which as a pattern is not itself
        return allow[place]
    return next((reason for pattern, reason in allow.items() if fnmatch.fnmatchcase(place, pattern)), None)


@contextlib.contextmanager
def _counting_depth(subject: Subject | None = None) -> Iterator[None]:
    before = asked_now()
    _depth.value = getattr(_depth, "value", 0) + 1
    _depth.subjects = before if subject is None else (*before, subject)
    try:
        yield
    finally:
        _depth.value -= 1
        _depth.subjects = before


def _tell(result: Finding | Diagnosis) -> None:
    if getattr(_depth, "value", 0) == 0:
        for listener in tuple(_listeners):
            listener(result)


def ask_all(
    checks: Iterable[Callable[..., Finding]], *data: Any, skip: Iterable[str] = (), **arguments: Any
) -> list[Finding]:
    """Ask each check of the same data, each with those of ``arguments`` that it takes.

    A limit given as an argument must be taken by at least one of them. A check that breaks (a defect of ours) becomes "not
    asked" with the error's name, so that one does not cost the others' answers.
    """
    checks = tuple(checks)
    _refuse_unknown(checks, arguments)
    findings = []
    for function in checks:
        known = info(function)
        if any(fnmatch.fnmatchcase(known.id, pattern) for pattern in skip):
            continue
        accepted = inspect.signature(function).parameters
        given = {k: v for k, v in arguments.items() if k in accepted or k == "allow"}
        try:
            findings.append(function(*data, **given))
        except Exception as error:
            if _is_misuse(error):
                raise
            unasked = not_asked(_why_unasked(error))
            findings.append(dataclasses.replace(unasked, id=known.id, rank=known.rank))
    return findings


def _refuse_unknown(checks: Iterable[Callable[..., Finding]], arguments: Mapping[str, Any]) -> None:
    taken = {"allow"}.union(*(inspect.signature(function).parameters for function in checks))
    for name in arguments:
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            raise TypeError(f"{name}: no question takes it" + (f"; the nearest is {near[0]!r}" if near else ""))


def _is_misuse(error: Exception) -> bool:
    """Tell the caller's mistake from a defect of the check: our refusals begin with the argument's name and a colon."""
    return isinstance(error, (ValueError, TypeError)) and re.match(r"[a-z_]\w*: ", str(error)) is not None


def _why_unasked(error: Exception) -> str:
    if isinstance(error, MissingExtra):
        return str(error)
    return f"the check itself failed: {type(error).__name__}: {error}"
