"""One training in several processes that talk through gloo, as torchrun would start them, and what each of them saw."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_mltd.probes import children, witness
from pytest_mltd.probes.repeating import parameters_of, told

WAIT = 20.0  # seconds that a rank waits for the others; a guess: on one machine they are never far apart


@dataclass(frozen=True, slots=True)
class Rank:
    """What one process did. ``rows`` are its snapshots; ``began`` is whether it opened a process group, ``loaded`` whether it
    iterated a DataLoader; ``raised`` is the last line of an error and ``error`` all of it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    began: bool = False
    loaded: bool = False
    raised: str = ""
    error: str = ""

    @property
    def waiting(self) -> bool:
        """Whether the error is that others did not answer."""
        said = self.raised.lower()
        return any(word in said for word in ("gloo", "timed out", "connection closed", "connection reset", "allreduce"))


def run_ranks(train: Callable[..., Any], count: int, *, seed: int, steps: int | None, folder: Path) -> list[Rank]:
    """Run ``train`` in ``count`` processes at once and return what each saw, by rank.

    Each has torchrun's environment and a gloo process group that is open already; the training's own
    ``init_process_group`` is taken for it. Rank r is seeded with ``seed + r``, since nobody seeds the ranks of a real run.

    Raises:
        ValueError: the processes did not come to their end.
    """
    __tracebackhide__ = True
    before_ns = time.time_ns()

    def work() -> dict[str, Any]:
        others = [_forked(train, rank, count, seed, steps, folder, before_ns) for rank in range(1, count)]
        try:
            _live(train, 0, count, seed, steps, folder, before_ns)
        finally:
            _reap(others)
        return {"loaded": children.loaded()}

    # On one thread: a process that has run torch on several cannot be forked again.
    ended = children.in_child(work, threads=1)
    if ended.payload is None:
        raise ValueError(f"train: its processes did not come to their end: {ended.reason}")
    children.preload(ended.payload["loaded"])
    return [_read(folder / f"rank{rank}.json", rank) for rank in range(count)]


def _read(path: Path, rank: int) -> Rank:
    if not path.exists():
        died = f"rank {rank} left without a word"
        return Rank(raised=died, error=died)
    return Rank(**json.loads(path.read_text()))


def _forked(
    train: Callable[..., Any], rank: int, count: int, seed: int, steps: int | None, folder: Path, before_ns: int
) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
        _live(train, rank, count, seed, steps, folder, before_ns)
    finally:
        with contextlib.suppress(BaseException):
            children.stop_workers()
            sys.stdout.flush()
        os._exit(0)


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone; nobody else would."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _reap(pids: list[int]) -> None:
    until = time.monotonic() + WAIT + 5
    for pid in pids:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.02)


def _live(
    train: Callable[..., Any], rank: int, count: int, seed: int, steps: int | None, folder: Path, before_ns: int
) -> None:
    """Be one rank, to the end of the training, and write down what was seen."""
    seen: dict[str, Any] = {"began": False, "loaded": False}
    listener: Any = None
    try:
        from pytest_mltd.probes.snapshots import Snapshots

        listener = Snapshots()
        witness.go_offline(str(folder))
        watch = witness.watch(before_ns=before_ns, began_ns=time.time_ns(), forbids=lambda: True)
        with _group(rank, count, folder, seen), _noting_loaders(seen):
            _train(train, {"rank": rank, "local_rank": rank, "world_size": count, "seed": seed + rank}, steps, listener)
    except BaseException as error:
        if isinstance(error, witness.Overwrites):
            error = ValueError(f"it was stopped before it changed {watch.wrote!r}, a file that was there before")
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            seen["error"] = told(error)
            seen["raised"] = traceback.format_exception_only(error)[-1].strip()[:300]
    part = folder / f"rank{rank}.part"
    part.write_text(json.dumps({**seen, "rows": listener.rows if listener is not None else []}))
    part.rename(folder / f"rank{rank}.json")


def _train(train: Callable[..., Any], known: dict[str, int], steps: int | None, listener: Any) -> None:
    from pytest_mltd.recording import hooks
    from pytest_mltd.recording.recorder import Cut, cut_after
    from pytest_mltd.recording.seeds import seed_everything

    wanted = parameters_of(train)
    given = {name: value for name, value in known.items() if name in wanted}
    needed = [
        n for n, p in wanted.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and n not in given
    ]
    # As torch.multiprocessing.spawn hands them over: the rank first, whatever it is called.
    given.update(zip(needed, [known[n] for n in ("rank", "world_size") if n not in given], strict=False))
    cutting = cut_after(steps) if steps is not None else contextlib.nullcontext()
    hooks.join(listener)
    try:
        with seed_everything(known["seed"], deterministic=None), contextlib.suppress(Cut), cutting:
            train(**given)
    finally:
        hooks.leave(listener)


@contextlib.contextmanager
def _group(rank: int, count: int, folder: Path, seen: dict[str, Any]) -> Iterator[None]:
    """Open the process group, and let the training's own calls to open and close one do nothing."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(count),
        LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
    )
    os.environ.setdefault("MASTER_PORT", "29500")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch.distributed as dist
    from torch._C._distributed_c10d import FileStore

    store = FileStore(str(folder / "store"), count)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=datetime.timedelta(seconds=WAIT))
    close = dist.destroy_process_group

    def init_process_group(*args: Any, **kwargs: Any) -> None:
        seen["began"] = True

    def destroy_process_group(*args: Any, **kwargs: Any) -> None:
        pass

    for ours in (init_process_group, destroy_process_group):
        _replace(ours.__name__, getattr(dist, ours.__name__), ours)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            close()  # the others hear at once that this one is gone


def _replace(name: str, theirs: Any, ours: Any) -> None:
    """Replace a function wherever it was imported by its own name. Never undone: this process ends with the training."""
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", {})
        if names.get(name) is theirs:
            names[name] = ours


@contextlib.contextmanager
def _noting_loaders(seen: dict[str, Any]) -> Iterator[None]:
    from torch.utils.data import DataLoader

    iterate = DataLoader.__iter__

    def iterate_noted(self: Any) -> Any:
        seen["loaded"] = True
        return iterate(self)

    DataLoader.__iter__ = iterate_noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        DataLoader.__iter__ = iterate  # type: ignore[method-assign]
