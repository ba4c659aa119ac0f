"""What a run does beside its numbers: the files it opens, and where it takes something that differs each time.

Only for a process that exists for one run: an audit hook cannot be taken away again. Writes from C code (torch's zip writer,
SQLite, a database's client) are not seen.
"""

from __future__ import annotations

import itertools
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from pytest_mltd.recording.sites import shown

WRITING = os.O_WRONLY | os.O_RDWR
KEPT = 200  # of each kind; a run that opens more files than this is not read to the end anyway
LOOKED_INTO = 10_000  # files in a folder that is removed or renamed; a guess: a fraction of a second
CLOCK_STEP_NS = 20_000_000  # a file's time may lag the clock by one tick of the kernel, 10 ms at most
# Written by tools and not by the test; losing or repeating them costs nobody anything.
TOOLS = frozenset({"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".cache", ".git"})


UNSEEDED = "random.Random() without a seed"


class Overwrites(BaseException):
    """A run was about to change a file that was there before. Not an `Exception`: no handler of the run's own hides it."""

    __module__ = "builtins"


@dataclass(slots=True)
class Witness:
    """What was seen. ``wrote`` is the file that was there before and was kept from being changed; "" when there was none.
    ``changed`` are those that were there before and were changed, because nothing forbade it yet.

    ``reread`` are files that an earlier run of the same trial made or changed and this one read. ``drawn`` are pairs of what
    differs each time it is asked (a clock, the system's entropy) and the line of the user's code that asked it.
    """

    wrote: str = ""
    changed: list[str] = field(default_factory=list)
    reread: list[str] = field(default_factory=list)
    drawn: list[tuple[str, str]] = field(default_factory=list)

    def note(self, what: str, line: str) -> None:
        if line and (what, line) not in self.drawn and len(self.drawn) < KEPT:
            self.drawn.append((what, line))

    def as_dict(self) -> dict[str, Any]:
        return {
            "wrote": self.wrote,
            "changed": self.changed,
            "reread": self.reread,
            "drawn": [list(pair) for pair in self.drawn],
        }


def watch(*, before_ns: int, began_ns: int, forbids: Callable[[], bool], protected: Iterable[str] = ()) -> Witness:
    """Watch this process from now to its end.

    Args:
        before_ns: when the first run of the trial began, as `time.time_ns` gives it; a file not changed since then was there
            before.
        began_ns: when this run began.
        forbids: whether, at this moment, a write to a file that was there before ends the run.
        protected: more files that were there before, although an earlier run changed them.
    """
    seen = Witness()
    rules = _Rules(seen, before_ns - CLOCK_STEP_NS, began_ns, forbids, frozenset(protected))
    sys.addaudithook(rules.hear)
    _tap_entropy(seen)
    return seen


def go_offline(folder: str) -> None:
    """Keep trackers from sending anything: W&B and MLflow by their environment variables, into ``folder``.

    A program that gives its tracker an address in code is not held back by this.
    """
    os.environ.update(WANDB_MODE="offline", WANDB_DIR=folder, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")


def user_line(frame: FrameType | None, *, through: tuple[str, ...] = ()) -> str:
    """Return ``file:line`` of the calling frame if it is the user's own code, else "".

    Frames of the named files (``random.py``) are passed over: they draw for whoever called them. Others draw for themselves:
    a worker pool names its semaphores with the system's entropy.
    """
    while frame is not None and os.path.basename(frame.f_code.co_filename) in through:
        frame = frame.f_back
    if frame is None or not is_users(frame.f_code.co_filename):
        return ""
    return shown((frame.f_code.co_filename, frame.f_lineno))


class _Rules:
    """The audit hook. It must be quick and must not fail: it hears every import and every file."""

    def __init__(
        self, seen: Witness, before_ns: int, began_ns: int, forbids: Callable[[], bool], protected: frozenset[str]
    ) -> None:
        self.seen, self.before_ns, self.began_ns = seen, before_ns, began_ns
        self.forbids, self.protected = forbids, protected
        self.own: set[str] = set()  # files that this run wrote
        self.handlers: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "open": self._opened,
            "os.rename": self._renamed,
            "os.remove": self._removed,
            "os.truncate": self._truncated,
            "shutil.rmtree": self._removed,  # it removes what is inside by handles, which no later event names
        }

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        handler = self.handlers.get(event)
        if handler is not None:
            try:
                handler(args)
            except (OSError, ValueError, TypeError):
                pass  # the open itself will say what is wrong with the path

    def _opened(self, args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        path, _, flags = args
        if isinstance(path, int):
            return
        if isinstance(flags, int) and flags & WRITING:
            self._changes(path, -1)
        elif len(self.seen.reread) < KEPT:
            self._read(os.fsdecode(path))

    def _renamed(self, args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        self._changes(args[0], args[2], with_inside=True)
        self._changes(args[1], args[3])

    def _removed(self, args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        self._changes(args[0], args[1], with_inside=True)

    def _truncated(self, args: tuple[Any, ...]) -> None:
        __tracebackhide__ = True
        self._changes(args[0], -1)

    def _changes(self, path: Any, folder: Any, *, with_inside: bool = False) -> None:
        __tracebackhide__ = True
        if isinstance(path, int) or (isinstance(folder, int) and folder != -1):
            return
        name = os.path.abspath(os.fsdecode(path))
        self.own.add(name)
        if self.seen.wrote or not self._was_there(name, with_inside):
            return
        if self.forbids():
            self.seen.wrote = near(name)
            raise Overwrites(_stopped(near(name), os.path.isdir(name), again=name in self.protected))
        self.seen.changed.append(name)

    def _was_there(self, name: str, with_inside: bool) -> bool:
        if TOOLS.intersection(name.split(os.sep)) or name.startswith(("/dev/", "/proc/", "/sys/")):
            return False
        if with_inside and os.path.isdir(name) and not os.path.islink(name):
            # The folder's own time changes with each file made in it; one that holds nothing old is no loss.
            inside = (os.path.join(folder, file) for folder, _, files in os.walk(name) for file in files)
            return any(self._was_file(path, os.lstat) for path in itertools.islice(inside, LOOKED_INTO))
        return self._was_file(name, os.stat)

    def _was_file(self, name: str, look: Callable[[str], os.stat_result]) -> bool:
        if TOOLS.intersection(name.split(os.sep)):
            return False
        found = look(name)
        # An empty file holds nothing that could be lost; lock files are of that kind.
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False
        return found.st_ctime_ns < self.before_ns or name in self.protected

    def _read(self, path: str) -> None:
        if path.endswith((".py", ".pyc", ".so")):
            return
        found = os.stat(path)
        if self.before_ns <= found.st_ctime_ns < self.began_ns and stat.S_ISREG(found.st_mode):
            name = near(os.path.abspath(path))
            if name not in self.seen.reread and os.path.abspath(path) not in self.own:
                self.seen.reread.append(name)


def _stopped(name: str, is_folder: bool, *, again: bool) -> str:
    kind = "folder" if is_folder else "file"
    first = f"this run was stopped before it changed {name!r}, a {kind} that was there before"
    if again:
        first = f"run 1 changed {name!r}, which was there before; run 2 was stopped before it did so again"
    return (
        f"{first}\n"
        "    A test that is run again must not harm what it finds. Writes from C code are not seen by this.\n"
        "    next: write below tmp_path, or to a file the test makes itself"
    )


class _Tap:
    """Stands in for a function of the standard library and notes who of the user's code called it.

    An object and not a function: as a class attribute it must not turn into a method, just as the original does not.
    """

    def __init__(self, name: str, real: Callable[..., Any], seen: Witness) -> None:
        self.name, self.real, self.seen = name, real, seen
        self.__name__, self.__doc__ = getattr(real, "__name__", name), real.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(self.seen.drawn) < KEPT:
            self.seen.note(self.name, user_line(sys._getframe(1), through=DRAWING))
        return self.real(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self.real)


DRAWING = ("random.py", "secrets.py", "uuid.py")
# (module, attribute, how the user's code reads it)
_DIFFERS = (
    ("os", "urandom", "the system's entropy"),
    ("random", "_urandom", "the system's entropy"),
    ("uuid", "uuid4", "uuid.uuid4"),
    ("uuid", "uuid1", "uuid.uuid1"),
    ("time", "time", "time.time"),
    ("time", "time_ns", "time.time_ns"),
    ("time", "perf_counter", "time.perf_counter"),
    ("time", "perf_counter_ns", "time.perf_counter_ns"),
    ("os", "getpid", "os.getpid"),
    ("torch", "seed", "torch.seed"),
)


def _tap_entropy(seen: Witness) -> None:
    import random
    import time
    import uuid

    modules = {"os": os, "random": random, "time": time, "uuid": uuid, "torch": sys.modules.get("torch")}
    for name, attribute, said in _DIFFERS:
        real = getattr(modules[name], attribute, None)
        if real is not None:
            setattr(modules[name], attribute, _Tap(said, real, seen))
    _tap_generators(random, seen)


def _tap_generators(random: Any, seen: Witness) -> None:
    """Note each ``random.Random()`` that is made without a seed. The global one is seeded and was made long before."""
    real = random.Random.__init__

    def made(self: Any, x: Any = None) -> None:
        if x is None and type(self) is not random.SystemRandom:
            seen.note(UNSEEDED, user_line(sys._getframe(1)))
        real(self, x)

    random.Random.__init__ = made
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.default_rng = _Unseeded(numpy_random.default_rng, seen)  # type: ignore[attr-defined]


class _Unseeded(_Tap):
    """Notes a generator that is made without a seed; one that is given something is none of its business."""

    def __init__(self, real: Callable[..., Any], seen: Witness) -> None:
        super().__init__("numpy.random.default_rng() without a seed", real, seen)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if all(value is None for value in (*args, *kwargs.values())):
            self.seen.note(self.name, user_line(sys._getframe(1)))
        return self.real(*args, **kwargs)


_LIBRARY = tuple(
    {
        os.path.join(path, "")
        for path in (*sysconfig.get_paths().values(), os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        if path and path not in (sys.prefix, sys.base_prefix)
    }
)


def is_users(filename: str) -> bool:
    return not filename.startswith("<") and not filename.startswith(_LIBRARY) and "site-packages" not in filename


def near(path: str) -> str:
    """Return a path relative to the working folder where it lies below it."""
    here = os.path.join(os.getcwd(), "")
    return path[len(here) :] if path.startswith(here) else path
