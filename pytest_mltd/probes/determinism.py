"""Is a training the same twice, bit for bit? Run twice from one state, compared event by event, and the cause named."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_mltd.checks.runs.divergence import check_divergence
from pytest_mltd.core.asking import asserting, umbrella
from pytest_mltd.core.extras import need
from pytest_mltd.core.findings import Finding, Table, not_asked
from pytest_mltd.core.traces import Trace
from pytest_mltd.core.trials import Condition, under
from pytest_mltd.probes import carrying, causes, children, leftovers, witness
from pytest_mltd.probes.hashes import depends_on_hashes
from pytest_mltd.probes.results import Leaf, first_difference, leaves_of

ID = "runs.divergence"
Where = Literal["fork", "fresh", "here"]


@umbrella
def check_reproducible(
    train: Callable[..., Any],
    *,
    seed: int = 0,
    steps: int | None = None,
    interpreter: Where | None = None,
    in_process: bool = False,
    allow: Mapping[str, str] | None = None,
) -> Finding:
    """Ask whether a training function does the same twice, bit for bit, and name the cause where it does not.

    Both runs start from the state that this process is in, each in a forked child, so that a generator made at import is the
    same for both; nothing they do reaches this process. Before each, Python, numpy and torch are seeded. Compared are random
    states, batches, outputs, losses, gradients and weights at each step, and the numbers that ``train`` returns. If the code
    lets the order of a set out or calls ``hash``, two fresh interpreters with different hash seeds are compared as well
    (seconds each).

    Where a fork is not possible the runs are made in fresh interpreters if the function can be found there again, else one
    after the other in this process with random states put back; the finding says so, and what could not be told apart then.
    A run that is about to change a file that was there before is stopped.

    Args:
        train: the training; given ``seed`` if it has a parameter of that name, and nothing else.
        seed: set before each run.
        steps: end each run after so many steps of the busiest optimizer; None lets them run to their end.
        interpreter: "fork", "fresh" or "here" to insist on one; None takes the first that is possible.
        in_process: run it twice in one child instead, so that what the first run leaves behind (a cache, a counter, a model
            that is trained further) shows.
        allow: reasons by place, as for `check_divergence`.

    Raises:
        TypeError: ``train`` is not a function that can be called so.
        ValueError: ``train`` raised; the text has its traceback. Or an argument is out of range.
        MissingExtra: torch is not installed.

    Example:
        >>> check_reproducible(lambda: 0.5).ok
        True
    """
    _check_arguments(train, seed, steps, interpreter)
    need("torch", "check_reproducible")
    # Here and not in each child: what the children share they need not load, and both see the same of it.
    import pytest_mltd.recording.recorder
    import pytest_mltd.recording.watching  # noqa: F401

    with _folder() as folder:
        runs = _Runs(train, Condition(seed=seed, steps=steps, exact=True), folder, interpreter)
        if in_process:
            return _named(_carried_over(runs, allow), seed)
        finding = _twice(runs, runs.once, allow)
        if finding.ok and finding.asked and runs.where == "fork" and depends_on_hashes(train):
            finding = _across_hash_seeds(runs, finding, allow)
        return _named(_with_notes(finding, runs.notes), seed)


assert_reproducible = asserting(check_reproducible)


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: where its trace is, what it returned, how it failed."""

    trace: Trace
    leaves: tuple[Leaf, ...]
    raised: str = ""
    wrote: str = ""
    beside: causes.Beside = dataclasses.field(default_factory=causes.Beside)
    changed: tuple[str, ...] = ()


class _Runs:
    """Makes the runs of one question, all in the same way."""

    def __init__(
        self, train: Callable[..., Any], condition: Condition, folder: Path, interpreter: Where | None
    ) -> None:
        self.train, self.condition, self.folder = train, condition, folder
        self.notes: list[str] = []
        self.threads: int | None = None
        self.before_ns = time.time_ns()
        self._count = 0
        self.where = self._choose(interpreter)

    def once(self) -> Ran:
        """Run the training once, from the state this process was in at the first run."""
        if self.where == "fresh":
            return self.fresh(hash_seed=0)
        if self.where == "here":
            return _ran(_run(self.train, self.condition, self._next()), self)
        return self.forked(1)

    def forked(self, times: int) -> Ran:
        """Run it in a child, so many times in the same process; what is returned is the last run."""
        last = self._next()
        folders = [self._next() for _ in range(times - 1)] + [last]

        def work() -> dict[str, Any]:
            return _in_child(self.train, self.condition, folders, self.before_ns)

        ended = children.in_child(work, threads=self.threads)
        if ended.hung and self.threads is None:
            self.threads = 1
            self.notes.append("on one thread: torch has run on several in this process, and a child of it would hang")
            ended = children.in_child(work, threads=1)
        if ended.payload is None:
            raise ValueError(f"train: its process did not come to its end: {ended.reason}")
        children.preload(ended.payload["loaded"])
        return _ran(ended.payload, self)

    def fresh(self, hash_seed: int) -> Ran:
        """Run it in a new interpreter."""
        payload = carrying.run_fresh(
            self.train, dataclasses.asdict(self.condition), self._next(), self.before_ns, hash_seed
        )
        return _ran(payload, self)

    def _next(self) -> Path:
        self._count += 1
        folder = self.folder / f"run{self._count}"
        folder.mkdir()
        return folder

    def _choose(self, interpreter: Where | None) -> Where:
        why = children.forbids_fork()
        if interpreter == "fork" and why:
            raise ValueError(f"interpreter: {why}")
        if interpreter == "fresh" and (cannot := carrying.forbids(self.train)):
            raise ValueError(f"interpreter: a fresh one cannot find this function: {cannot}")
        if interpreter is not None:
            return interpreter
        if not why:
            return "fork"
        cannot = carrying.forbids(self.train)
        self.notes.append(f"{why}, so each run had a fresh interpreter" if not cannot else _HERE.format(why=why))
        return "here" if cannot else "fresh"


_HERE = (
    "{why}, so both ran in this process: a cache, a counter or a generator that the first run left changed cannot be told "
    "from a training that differs"
)


def run_child(train: Callable[..., Any], condition: Condition, folder: Path, before_ns: int) -> dict[str, Any]:
    """Run a training in this process, which exists for nothing else, and return what is to be told of it."""
    return _in_child(train, condition, [folder], before_ns)


def _in_child(train: Callable[..., Any], condition: Condition, folders: list[Path], before_ns: int) -> dict[str, Any]:
    witness.go_offline(str(folders[0]))
    seen = witness.watch(before_ns=before_ns, began_ns=time.time_ns(), forbids=lambda: True)
    payload: dict[str, Any] = {}
    before: dict[str, str] = {}
    for number, folder in enumerate(folders):
        payload = _run(train, condition, folder)
        if number == 0 and len(folders) > 1:
            before = leftovers.module_state(carrying.modules_behind(train))
    after = leftovers.module_state(carrying.modules_behind(train)) if len(folders) > 1 else {}
    payload["changed"] = [name for name in after if before.get(name) != after[name]]
    return {**payload, "witness": seen.as_dict(), "loaded": children.loaded()}


def _run(train: Callable[..., Any], condition: Condition, folder: Path) -> dict[str, Any]:
    """Seed, record and run; the trace goes into the folder."""
    from pytest_mltd.recording.recorder import Cut, cut_after, record
    from pytest_mltd.recording.seeds import seed_everything

    given = {"seed": condition.seed} if "seed" in _parameters(train) else {}
    result, raised = None, ""
    with under(condition), seed_everything(condition.seed or 0, deterministic=None), record() as recording:
        try:
            with cut_after(condition.steps) if condition.steps is not None else contextlib.nullcontext():
                result = train(**given)
        except (Cut, witness.Overwrites):
            pass
        except (Exception, SystemExit) as error:
            if not (isinstance(error, SystemExit) and error.code in (None, 0)):
                raised = "".join(traceback.format_exception(error))
    recording.trace.save(folder / "trace.mltd")
    return {
        "trace": str(folder / "trace.mltd"),
        "leaves": [dataclasses.astuple(leaf) for leaf in leaves_of(result)],
        "raised": raised,
    }


def _ran(payload: Mapping[str, Any], runs: _Runs) -> Ran:
    seen = payload.get("witness", {})
    return Ran(
        trace=Trace.load(payload["trace"]),
        leaves=tuple(Leaf(*values) for values in payload["leaves"]),
        raised=payload["raised"],
        wrote=seen.get("wrote", ""),
        beside=causes.Beside(seen.get("reread", ()), [(what, line) for what, line in seen.get("drawn", ())]),
        changed=tuple(payload.get("changed", ())),
    )


def _twice(runs: _Runs, once: Callable[[], Ran], allow: Mapping[str, str] | None) -> Finding:
    with _state_put_back(runs.where == "here"):
        first = once()
    if first.raised:
        raise ValueError(f"train: it raised\n{first.raised}")
    if first.wrote:
        return _stopped(first.wrote)
    return _compared(first, once(), allow)


def _compared(first: Ran, second: Ran, allow: Mapping[str, str] | None) -> Finding:
    if second.wrote:
        return _stopped(second.wrote)
    if second.raised:
        return _only_second_raised(second, first)
    finding = check_divergence(causes.comparable(first.trace), causes.comparable(second.trace), allow=allow)
    if finding.failed:
        return causes.explained(
            finding, first.trace, second.trace, dataclasses.replace(second.beside, drawn=first.beside.drawn)
        )
    if finding.allowed:
        return finding
    different = first_difference(first.leaves, second.leaves, clocks=_reads_clock(first))
    if different is not None:
        finding = _results_differ(*different, finding)
        return causes.explained(
            finding, first.trace, second.trace, dataclasses.replace(second.beside, drawn=first.beside.drawn)
        )
    return _equal(finding, first)


def _equal(finding: Finding, first: Ran) -> Finding:
    compared = [leaf for leaf in first.leaves if leaf.kind != "ignored"]
    returned = f"{len(compared)} returned {'number' if len(compared) == 1 else 'numbers'}" if compared else ""
    if finding.asked:
        looked = f"{finding.looked_at}; {returned}" if returned else finding.looked_at
        return dataclasses.replace(finding, looked_at=looked)
    if not compared:
        return not_asked(
            f"nothing to compare: {finding.headline}, and it returned no number",
            next_step="let the training take an optimizer step, or return what it measured",
        )
    return Finding(
        ok=True,
        headline=f"two runs return the same, bit for bit, in {returned}",
        looked_at=f"{returned}; {finding.headline}",
    )


def _results_differ(one: Leaf, two: Leaf, equal: Finding) -> Finding:
    place = one.path or "the result"
    trained = f"the training is equal ({equal.headline}), and" if equal.asked else "nothing was recorded, and"
    return Finding(
        ok=False,
        id=ID,
        headline=f"{trained} what it returned differs at '{place}': {one.text} and {two.text}",
        culprit=place,
        table=Table(("returned", "run 1", "run 2"), ((place, one.text, two.text),), 0),
        shows="Everything recorded up to the last step agrees; what is computed after it, or beside it, does not.",
        next_step="look at the evaluation: dropout that is active, a sample drawn without a seed, a clock",
        details={"cause": "result", "phase": "returned value"},
    )


def _only_second_raised(second: Ran, first: Ran) -> Finding:
    line = second.raised.strip().splitlines()[-1][:120]
    finding = Finding(
        ok=False,
        id=ID,
        headline=f"run 1 came to its end, run 2 raised {line}",
        culprit="run 2",
        shows="Both runs began in the same state; the second did not get through.",
        next_step="look at what the first run left: files, ports, locks",
        details={"cause": "raised"},
    )
    return causes.explained(finding, first.trace, second.trace, second.beside)


def _stopped(name: str) -> Finding:
    return not_asked(
        f"a run was stopped before it changed {name!r}, a file that was there before",
        next_step="give the training a folder of its own to write to (writes from C code are not seen by this)",
    )


def _across_hash_seeds(runs: _Runs, finding: Finding, allow: Mapping[str, str] | None) -> Finding:
    """Ask two fresh interpreters with different hash seeds, where the function can be found again there."""
    cannot = carrying.forbids(runs.train)
    if cannot:
        runs.notes.append(f"hash seed not asked, though the code lets the order of a set out or calls hash(): {cannot}")
        return finding
    first = runs.fresh(hash_seed=1)
    if first.raised:
        runs.notes.append(
            f"hash seed not asked: in a fresh interpreter it raised {first.raised.strip().splitlines()[-1]}"
        )
        return finding
    across = _compared(first, runs.fresh(hash_seed=2), allow)
    if not across.failed:
        runs.notes.append("also equal in fresh interpreters under two hash seeds")
        return finding
    if _compared(first, runs.fresh(hash_seed=1), allow).failed:
        # Forks of one process agree, so the seed reaches all that the function draws. That is what was asked.
        runs.notes.append(
            "fresh interpreters differ also under one hash seed: something is drawn while modules are imported, before "
            "the seed is set"
        )
        return finding
    return causes.follows_hash_seed(across)


def _carried_over(runs: _Runs, allow: Mapping[str, str] | None) -> Finding:
    """Compare a run with the second run of another process."""
    first, later = runs.forked(1), runs.forked(2)
    for ran in (first, later):
        if ran.raised:
            raise ValueError(f"train: it raised\n{ran.raised}")
    finding = _compared(first, later, allow)
    if not finding.failed:
        return dataclasses.replace(
            finding, looked_at=f"{finding.looked_at}; the second ran in a process that had run it once"
        )
    if _compared(first, runs.forked(1), allow).failed:
        return finding  # it differs between processes as well
    return causes.carried_over(finding, later.changed)


def _with_notes(finding: Finding, notes: list[str]) -> Finding:
    if not notes:
        return finding
    said = "; ".join(notes)
    if finding.failed:
        return dataclasses.replace(finding, shows=f"{finding.shows} ({said})".strip())
    return dataclasses.replace(finding, looked_at=f"{finding.looked_at}; {said}".strip("; "))


def _named(finding: Finding, seed: int) -> Finding:
    return dataclasses.replace(finding, id=ID, details={**finding.details, "seed": seed})


def _reads_clock(ran: Ran) -> bool:
    return any(what in causes.CLOCKS for what, _ in ran.beside.drawn)


@contextlib.contextmanager
def _state_put_back(wanted: bool) -> Iterator[None]:
    """Put the random states of the process back after the first of two runs in it."""
    if not wanted:
        yield
        return
    from pytest_mltd.recording.seeds import restore, snapshot

    state, own = snapshot(), leftovers.generators()
    try:
        yield
    finally:
        restore(state)
        leftovers.put_back(own)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mltd-runs-"))
    home = os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == home:
            shutil.rmtree(folder, ignore_errors=True)


def _parameters(train: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(train).parameters
    except (TypeError, ValueError):
        return {}


def _check_arguments(train: Any, seed: Any, steps: Any, interpreter: Any) -> None:
    if not callable(train) or inspect.isclass(train):
        raise TypeError(f"train: a function is needed, as in check_reproducible(lambda: fit(model)), not {train!r}")
    if inspect.isgeneratorfunction(train) or inspect.iscoroutinefunction(train):
        raise TypeError(
            "train: a plain function is needed; a generator or coroutine function does nothing when it is called"
        )
    missing = [
        p.name
        for p in _parameters(train).values()
        if p.default is p.empty and p.name != "seed" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if missing:
        raise TypeError(f"train: it needs {', '.join(missing)}; wrap the call: lambda: train({', '.join(missing)})")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: a whole number from 0 to {2**32 - 1} is needed, not {seed!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps: at least 1 is needed, not {steps!r}")
    if interpreter not in (None, "fork", "fresh", "here"):
        raise ValueError(f"interpreter: 'fork', 'fresh', 'here' or None is needed, not {interpreter!r}")
