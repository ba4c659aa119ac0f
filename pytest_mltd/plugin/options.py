"""Every option, once: a field of `Settings` is a flag, an ini key and a line of help."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_mltd.core.asking import Policy

HIGHEST_SEED = 2**32 - 1  # numpy takes no more
STEPS = 200  # under --mltd-repro; enough for a fault to show in most runs, a guess


def _option(default: Any, help: str, *, flag: bool = True, value: str = "", choices: tuple[str, ...] = ()) -> Any:
    factory = {"default_factory": dict} if default == {} else {"default": default}
    meta = {"help": help, "flag": flag, "value": value, "choices": choices}
    return dataclasses.field(**factory, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options, parsed once. What a field means is its help."""

    repro: bool = _option(
        False,
        "run each test that records a run or asks a check twice from the same state, and fail where the runs differ",
    )
    seed: int | None = _option(
        None, "set Python's, numpy's and torch's random state to N before each test's set-up and call", value="N"
    )
    slice: int | None = _option(
        None, "use N samples, the same ones each time, of each DataLoader that a test iterates over", value="N"
    )
    steps: int | None = _option(
        None, f"end mltd_train and mltd.run after N optimizer steps (under --mltd-repro {STEPS} if not said)", value="N"
    )
    incident: str = _option(
        "",
        "append one evidence record to the ledger of incident NAME for each test marked mltd('NAME/...')",
        value="NAME",
    )
    update: bool = _option(False, "write the baselines that mltd_baseline compares with, from tests that pass")
    repro_scope: str = _option(
        "used",
        "which tests --mltd-repro runs twice: those that used mltd in their first run, or all",
        flag=False,
        choices=("used", "all"),
    )
    repro_interpreter: str = _option(
        "fork",
        "where --mltd-repro runs a test: in a fork (fast), or each time in a fresh interpreter with another hash seed "
        "(seconds a run; also shows what differs from process to process)",
        flag=False,
        choices=("fork", "fresh"),
    )
    repro_timeout: int = _option(
        60, "seconds without any CPU time used after which --mltd-repro ends a test that stands still", flag=False
    )
    allow: Mapping[str, str] = _option(
        {},
        "findings that are allowed, one a line: 'family.fault = reason' or 'family.fault:place = reason'",
        flag=False,
    )
    limits: Mapping[str, float] = _option(
        {}, "limits for the whole project, one a line: 'family.fault.argument = number'", flag=False
    )

    @property
    def rerun_steps(self) -> int:
        """After how many steps a run is cut under --mltd-repro."""
        return STEPS if self.steps is None else self.steps


SETTINGS = pytest.StashKey[Settings]()


def add(parser: pytest.Parser) -> None:
    """Declare every flag and ini key."""
    group = parser.getgroup("mltd", "machine learning training debugger")
    for field in dataclasses.fields(Settings):
        name, said = f"mltd_{field.name}", field.metadata["help"]
        parser.addini(name, help=said, type=_ini_type(field), default=None)
        if field.metadata["flag"]:
            flag = "--" + name.replace("_", "-")
            if field.metadata["value"]:
                group.addoption(flag, dest=name, default=None, metavar=field.metadata["value"], help=said)
            else:
                group.addoption(flag, dest=name, action="store_true", default=None, help=said)


def parse(config: pytest.Config) -> Settings:
    """Return the settings: the flag where it was given, else the ini key, else the default.

    Raises:
        pytest.UsageError: a value is wrong; the text begins with the option's name.
    """
    values = {}
    for field in dataclasses.fields(Settings):
        name = f"mltd_{field.name}"
        given = getattr(config.option, name, None)
        if given is not None:
            values[field.name] = _parsed(field, given, "--" + name.replace("_", "-"))
        elif (stated := _ini(config, name)) is not None:
            values[field.name] = _parsed(field, stated, name)
    return Settings(**values)


def parse_stated(stated: Mapping[str, Any]) -> Settings:
    """Return the settings that the ini keys of a project give, where there is no pytest to ask: in the shell.

    Args:
        stated: ini key -> its text, or its lines.

    Raises:
        pytest.UsageError: a value is wrong; the text begins with the key.
    """
    values = {}
    for field in dataclasses.fields(Settings):
        name = f"mltd_{field.name}"
        if name in stated and _ini_type(field) == "linelist":
            lines = stated[name].splitlines() if isinstance(stated[name], str) else stated[name]
            values[field.name] = _parsed(field, [line for line in map(str.strip, lines) if line], name)
    return Settings(**values)


def wants_repro(config: pytest.Config) -> bool:
    """Tell, before options are parsed for good, whether tests will be run in children."""
    return bool(getattr(config.known_args_namespace, "mltd_repro", None) or _ini(config, "mltd_repro"))


def policy_of(settings: Settings) -> Policy:
    """Return what the project decided for all checks.

    Raises:
        pytest.UsageError: a key names a check or limit that does not exist.
    """
    from pytest_mltd.core.asking import Policy, discover, info

    if settings.allow or settings.limits:
        known = {info(c).id: info(c) for room in ("checks", "probes") for c in discover(f"pytest_mltd.{room}")}
        for key in settings.limits:
            asked, _, limit = key.rpartition(".")
            if asked not in known:
                raise pytest.UsageError(f"mltd_limits: {key!r} names no check{_nearest(asked, known)}")
            if limit not in known[asked].limits:
                has = ", ".join(known[asked].limits) or "none"
                raise pytest.UsageError(f"mltd_limits: {asked} has no limit {limit!r}; it has {has}")
        families = {name.partition(".")[0] for name in known}
        for key in settings.allow:
            fault = key.partition(":")[0]
            if re.fullmatch(r"[a-z_]+\.[a-z_]+", fault) and fault.partition(".")[0] in families and fault not in known:
                raise pytest.UsageError(f"mltd_allow: {key!r} names no check{_nearest(fault, known)}")
    return Policy(limits=settings.limits, allow=settings.allow)


def _ini_type(field: dataclasses.Field[Any]) -> Any:
    if isinstance(field.default, bool):
        return "bool"
    if field.default is dataclasses.MISSING:
        return "linelist"
    return "int" if field.default is None or isinstance(field.default, int) else "string"


def _ini(config: pytest.Config, name: str) -> Any:
    try:
        return config.getini(name)
    except (TypeError, ValueError, pytest.UsageError) as error:  # pytest says neither key nor remedy
        raise pytest.UsageError(f"{name}: {error}") from None


def _parsed(field: dataclasses.Field[Any], value: Any, option: str) -> Any:
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise pytest.UsageError(f"{option}: {' or '.join(choices)} is needed, not {value!r}")
    if field.name == "seed":
        return _whole(value, option, least=0, most=HIGHEST_SEED)
    if field.name in ("slice", "steps", "repro_timeout"):
        return _whole(value, option, least=1)
    if field.name == "incident" and value:
        return _incident(value, option)
    if field.name == "allow":
        return dict(_pairs(value, option, "a reason"))
    if field.name == "limits":
        return {key: _number(text, key, option) for key, text in _pairs(value, option, "a number")}
    return value


def _whole(value: Any, option: str, *, least: int, most: int | None = None) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise pytest.UsageError(f"{option}: a whole number is needed, not {value!r}") from None
    if number < least or (most is not None and number > most):
        within = f"at least {least}" if most is None else f"from {least} to {most}"
        raise pytest.UsageError(f"{option}: a number {within} is needed, not {number}")
    return number


def _incident(value: Any, option: str) -> str:
    from pytest_mltd.core.incidents import check_name

    try:
        return check_name(value, option)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def _pairs(lines: Any, option: str, what: str) -> list[tuple[str, str]]:
    pairs = []
    for line in lines:
        key, sign, text = (part.strip() for part in line.partition(" = " if " = " in line else "="))
        if not sign or not key or not text:
            raise pytest.UsageError(f"{option}: a line is 'key = {what}', not {line!r}")
        pairs.append((key, text))
    return pairs


def _number(text: str, key: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise pytest.UsageError(f"{option}: {key} needs a number, not {text!r}") from None


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; the nearest is {near[0]!r}" if near else ""
