"""One run of a training function, made where it is asked for, and what is known of it afterwards."""

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

from pytest_mltd.core.traces import Trace
from pytest_mltd.core.trials import Condition, under
from pytest_mltd.probes import carrying, causes, children, leftovers, witness
from pytest_mltd.probes.results import Leaf, leaves_of

Where = Literal["fork", "fresh", "here"]


@dataclass(frozen=True, slots=True)
class Ran:
    """One run: where its trace is, what it returned, how it failed."""

    trace: Trace
    leaves: tuple[Leaf, ...]
    raised: str = ""
    wrote: str = ""
    beside: causes.Beside = dataclasses.field(default_factory=causes.Beside)
    changed: tuple[str, ...] = ()


class Runs:
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
        if ended.unsafe and self.threads is None:
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

    given = {"seed": condition.seed} if "seed" in parameters_of(train) else {}
    result, raised = None, ""
    with under(condition), seed_everything(condition.seed or 0, deterministic=None), record() as recording:
        try:
            with cut_after(condition.steps) if condition.steps is not None else contextlib.nullcontext():
                result = train(**given)
        except (Cut, witness.Overwrites):
            pass
        except (Exception, SystemExit) as error:
            if not (isinstance(error, SystemExit) and error.code in (None, 0)):
                raised = told(error)
    recording.trace.save(folder / "trace.mltd")
    return {
        "trace": str(folder / "trace.mltd"),
        "leaves": [dataclasses.astuple(leaf) for leaf in leaves_of(result)],
        "raised": raised,
    }


def told(error: BaseException) -> str:
    """Return an error with the frames of the user's program and its libraries, without ours."""
    told = traceback.TracebackException.from_exception(error)
    own = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
    link: traceback.TracebackException | None = told
    while link is not None:
        kept = [frame for frame in link.stack if not frame.filename.startswith(own)]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
    return "".join(told.format())


def _ran(payload: Mapping[str, Any], runs: Runs) -> Ran:
    seen = payload.get("witness", {})
    return Ran(
        trace=Trace.load(payload["trace"]),
        leaves=tuple(Leaf(*values) for values in payload["leaves"]),
        raised=payload["raised"],
        wrote=seen.get("wrote", ""),
        beside=causes.Beside(seen.get("reread", ()), [(what, line) for what, line in seen.get("drawn", ())]),
        changed=tuple(payload.get("changed", ())),
    )


@contextlib.contextmanager
def state_put_back(wanted: bool) -> Iterator[None]:
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
def own_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mltd-runs-"))
    home = os.getpid()
    try:
        yield folder
    finally:
        if os.getpid() == home:
            shutil.rmtree(folder, ignore_errors=True)


def parameters_of(train: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(train).parameters
    except (TypeError, ValueError):
        return {}
