"""Baselines: what a test's metrics were when they were good, in one small readable file beside each test, in `baselines/`.

The safe way is the only way: `baseline` makes a value and writes nothing, refusing what came from a cut or sliced run;
`Pending` keeps it until the test is known to have passed; only then is the one file of that one test replaced.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pytest_mltd import __version__
from pytest_mltd.core.findings import plain
from pytest_mltd.core.trials import Condition
from pytest_mltd.ledger.files import LedgerError, read_text, write_atomic

SCHEMA = 1
FOLDER = "baselines"
MACHINE = ("machine", "cpu", "cpus", "accelerator")  # facts that must agree before times are compared
COST = re.compile(r"latency|memory|throughput|duration|seconds|_ms$", re.IGNORECASE)


class BaselineError(LedgerError):
    """A baseline is there and cannot be used. The text is one sentence with the path and the remedy."""

    __module__ = "builtins"


class MissingBaseline(BaselineError):
    """There is no baseline for a test yet. The text has the command that makes it."""

    __module__ = "builtins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What a test's metrics were when they were good.

    ``metrics`` is split → (subgroup →) metric → number, or the numbers of several seeds, whose spread is the noise. ``test``
    is the node id from the file's name on, so that a folder may move. ``written`` is UTC, ISO 8601.
    """

    test: str
    nodeid: str
    metrics: Mapping[str, Any]
    name: str = ""
    seed: int | None = None
    commit: str = ""
    branch: str = ""
    dirty: bool = False
    written: str = ""
    version: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    def comparable(self, facts: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return the metrics that may be held against a run made here, and a note on each kind that may not.

        Latency and memory of another machine say nothing about this code; everything else is compared anywhere.
        """
        here = facts.get("environment", {})
        other = [k for k in MACHINE if k in self.environment and here.get(k, "") != self.environment[k]]
        kept = _without_cost(self.metrics) if other else dict(self.metrics)
        if not other or kept == self.metrics:
            return dict(self.metrics), ()
        differ = ", ".join(f"{k} {self.environment[k]!r} then, {here.get(k, 'unknown')!r} now" for k in other[:2])
        return kept, (f"latency and memory are not compared: the baseline was made on another machine ({differ})",)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `baseline_from_dict` is the way back."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}


def baseline(
    nodeid: str,
    metrics: Mapping[str, Any],
    facts: Mapping[str, Any],
    condition: Condition | None = None,
    *,
    name: str = "",
) -> Baseline:
    """Return the baseline that a passing run of a test would leave; nothing is written.

    Args:
        nodeid: the test's, relative to pytest's root.
        metrics: split → (subgroup →) metric → number or the numbers of several seeds.
        facts: what `provenance` returned.
        condition: what was imposed on the run.
        name: tells several baselines of one test apart.

    Raises:
        ValueError: there is no metric, one is not finite, or the run was cut or sliced: such numbers are no baseline.
        TypeError: a metric is no number.
    """
    condition = condition or Condition()
    if condition.steps is not None or condition.slice is not None or condition.fault is not None:
        raise ValueError(
            f"condition: a partial run makes no baseline ({_partial(condition)}); run again without it: {_command(nodeid)}"
        )
    kept = {str(k): _numbers(str(k), v) for k, v in metrics.items()}
    if not any(True for _ in _leaves(kept)):
        raise ValueError('metrics: no number is given; as in {"val": {"auc": 0.91}}')
    return Baseline(
        test=_own_name(nodeid),
        nodeid=nodeid,
        metrics=kept,
        name=name,
        seed=condition.seed,
        commit=str(facts.get("commit", "")),
        branch=str(facts.get("branch", "")),
        dirty=bool(facts.get("dirty", False)),
        written=str(facts.get("time", "")),
        version=__version__,
        environment=plain(facts.get("environment", {})),
    )


def baseline_path(rootdir: str | Path, nodeid: str, *, name: str = "") -> Path:
    """Return the file of a test's baseline: `tests/baselines/<module>__<test>.json` for a test in `tests/`.

    Signs that a file's name cannot hold become ``_``; then a few digits of the node id's digest keep the names apart.
    """
    file, _, test = nodeid.partition("::")
    stem = "__".join([Path(file).stem, *test.split("::"), *([name] if name else [])])
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", stem)[:120]
    if safe != stem:
        safe += "-" + hashlib.sha256(f"{_own_name(nodeid)}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return Path(rootdir) / Path(file).parent / FOLDER / f"{safe}.json"


def read(rootdir: str | Path, nodeid: str, *, name: str = "") -> Baseline:
    """Return a test's baseline.

    Raises:
        MissingBaseline: there is none; the text has the command that makes it.
        BaselineError: the file is torn, foreign, of another test, or from a newer version.
    """
    __tracebackhide__ = True
    path = baseline_path(rootdir, nodeid, name=name)
    if not path.exists():
        raise MissingBaseline(
            f"no baseline for {nodeid}; when its metrics are good, make it: {_command(nodeid)} (the file will be {path})"
        )
    found = _read_file(path, nodeid)
    if (found.test, found.name) != (_own_name(nodeid), name):
        raise BaselineError(
            f"{path}: it is the baseline of {found.test}, not of {_own_name(nodeid)}; rename one of the tests"
        )
    return found


def write(rootdir: str | Path, new: Baseline) -> Path:
    """Replace the file of one test's baseline, and no other file. Call it only for a test that passed: see `Pending`.

    Raises:
        BaselineError: the file belongs to another test or to a newer version.
        LedgerError: the folder cannot be written.
    """
    path = baseline_path(rootdir, new.nodeid, name=new.name)
    if path.exists():
        _refuse_to_replace(path, new)
    text = json.dumps({"schema": SCHEMA, **new.as_dict()}, indent=2, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, text + "\n")


def baseline_from_dict(data: Any) -> Baseline:
    """Return the baseline that `Baseline.as_dict` wrote. Unknown keys are left out.

    Raises:
        ValueError: it is no baseline; the text says which entry is wrong.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a mapping is needed, not {type(data).__name__}")
    values = {f.name: data[f.name] for f in fields(Baseline) if f.name in data}
    for key in ("test", "nodeid"):
        if not isinstance(values.get(key), str):
            raise ValueError(f"{key!r} is missing or no text")
    for key in ("metrics", "environment"):
        if not isinstance(values.setdefault(key, {}), Mapping):
            raise ValueError(f"{key!r} is no table")
    for key in ("name", "commit", "branch", "written", "version"):
        values[key] = str(values.get(key, ""))
    try:
        values["metrics"] = {str(k): _numbers(str(k), v) for k, v in values["metrics"].items()}
    except TypeError as error:
        raise ValueError(str(error)) from error
    return Baseline(**values)


class Pending:
    """The baselines of tests that are still running. Nothing is written before `settle` says that the test passed."""

    def __init__(self, rootdir: str | Path) -> None:
        self._rootdir = Path(rootdir)
        self._waiting: dict[str, list[Baseline]] = {}

    def add(self, new: Baseline) -> None:
        """Keep a baseline until its test has ended.

        Raises:
            ValueError: the test has already given one of that name.
        """
        waiting = self._waiting.setdefault(new.nodeid, [])
        if any(b.name == new.name for b in waiting):
            raise ValueError(
                f"name: {new.nodeid} gives two baselines {f'named {new.name!r}' if new.name else 'without a name'}; "
                'tell them apart: name="train"'
            )
        waiting.append(new)

    def settle(self, nodeid: str, *, passed: bool) -> tuple[Path, ...]:
        """Write what waits for a test that passed, forget what waits for one that did not. Returns the files written.

        Raises:
            LedgerError: a file cannot be written.
        """
        waiting = self._waiting.pop(nodeid, [])
        return tuple(write(self._rootdir, b) for b in waiting) if passed else ()

    def abandon(self) -> tuple[str, ...]:
        """Forget everything that waits, for a session that was interrupted; returns the tests concerned."""
        tests = tuple(self._waiting)
        self._waiting.clear()
        return tests


def _refuse_to_replace(path: Path, new: Baseline) -> None:
    """A torn file of the test itself may be replaced; another test's, or a newer version's, may not."""
    try:
        old = _read_file(path, new.nodeid)
    except BaselineError as error:
        if "newer" in str(error):
            raise
        return
    if (old.test, old.name) != (new.test, new.name):
        raise BaselineError(f"{path}: it is the baseline of {old.test}, and is not replaced; rename one of the tests")


def _read_file(path: Path, nodeid: str) -> Baseline:
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BaselineError(
            f"{path}: torn or not JSON ({str(error)[:80]}); restore it with git, or make it again: {_command(nodeid)}"
        ) from error
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if not isinstance(schema, int):
        raise BaselineError(f"{path}: it is no baseline of mltd; move it away, or make it again: {_command(nodeid)}")
    if schema > SCHEMA:
        raise BaselineError(
            f"{path}: a newer pytest-mltd wrote it (schema {schema}, this one knows {SCHEMA}); "
            "upgrade with: pip install -U pytest-mltd"
        )
    try:
        return baseline_from_dict(data)
    except ValueError as error:
        raise BaselineError(f"{path}: {error}; restore it with git, or make it again: {_command(nodeid)}") from error


def _command(nodeid: str) -> str:
    quoted = nodeid.replace("'", "'\\''")
    return f"pytest '{quoted}' --mltd-update"


def _own_name(nodeid: str) -> str:
    file, colons, test = nodeid.partition("::")
    return f"{Path(file).name}{colons}{test}"


def _partial(condition: Condition) -> str:
    said = {"slice": condition.slice, "steps": condition.steps, "fault": condition.fault}
    return ", ".join(f"{k}={v}" for k, v in said.items() if v is not None)


def _numbers(place: str, value: Any) -> Any:
    """Return a metric, or a mapping of metrics, as plain numbers.

    Raises:
        TypeError: something in it is no number.
        ValueError: a number is not finite.
    """
    if isinstance(value, Mapping):
        return {str(k): _numbers(f"{place}/{k}", v) for k, v in value.items()}
    value = plain(value.tolist() if hasattr(value, "tolist") else value)
    if isinstance(value, list):
        return [_numbers(place, v) for v in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"metrics: {place!r} is {value!r}; a number or a list of numbers is needed")
    if not math.isfinite(value):
        raise ValueError(f"metrics: {place!r} is {value!r}; a number that is not finite makes no baseline")
    return value


def _leaves(metrics: Mapping[str, Any]) -> Iterator[Any]:
    for value in metrics.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif value != []:
            yield value


def _without_cost(metrics: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            inner = _without_cost(value)
            if inner:
                kept[key] = inner
        elif not COST.search(key):
            kept[key] = value
    return kept
