"""A child process that starts from the very state this process is in, and what came of it.

A fork gives two runs the same start for 0.04 s, where a fresh interpreter costs seconds for importing torch. It cannot be had
everywhere, and a process that has run torch on several threads hangs its children: `in_child` notices both and says so.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_mltd.recording.imports import now_or_when_imported

ALIVE, DEBUGGING = b"A", b"D"
UNKNOWN = "unknown"
# Seconds without any CPU time used before a child's first small sum in torch is done, and in all: a guess. It takes
# milliseconds; on a loaded machine the child waits for its turn, and a waiting thread may spin before it sleeps.
FIRST_SIGN, FIRST_SIGN_AT_MOST = 5.0, 60.0
STILL = 60.0  # seconds without any CPU time used; a guess

# torch._dynamo comes with the first step of an optimizer, and takes as long as torch itself.
SLOW_TO_IMPORT = "numpy numpy.random torch torch._dynamo scipy.stats pandas polars sklearn.base sklearn.utils".split()

Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a child: what it handed over, or else why it handed over nothing."""

    payload: Payload | None = None
    reason: str = ""
    hung: bool = False
    unsafe: bool = False  # it hung before the work began: every other child of this process will


def forbids_fork() -> str:
    """Return why a child cannot be forked here, or nothing."""
    if not hasattr(os, "fork"):
        return "this system cannot fork"
    if sys.platform != "linux":
        return f"a fork is not safe on {sys.platform}"
    return ""


def in_child(work: Callable[[], Payload], *, still: float = STILL, threads: int | None = None) -> Ended:
    """Run ``work`` in a forked child and return what it returned.

    Args:
        work: returns plain data, as JSON can hold it. Whatever else it does stays in the child.
        still: seconds without any CPU time used after which the child counts as hung and is ended.
        threads: how many threads torch uses in the child; None leaves them as they are.
    """
    reader, writer = os.pipe()
    _flush()
    _end_garbage()
    with warnings.catch_warnings():  # Python 3.12 warns of threads; the first sign below is the real test
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _live(work, writer, threads)
    os.close(writer)
    try:
        return _wait(pid, reader, still)
    finally:
        os.close(reader)


def wait_for(process: subprocess.Popen[bytes], still: float) -> str:
    """Wait for another program to end. Return why it was ended by us, or how it died, or nothing if it left as it should."""
    last_cpu, since = -1.0, time.monotonic()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(0.5)
                return _death(code) if code < 0 else ""
            cpu = _cpu(process.pid)
            if cpu > last_cpu:
                last_cpu, since = cpu, time.monotonic()
            if time.monotonic() - since > still:
                return _hang(True, still)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def loaded() -> list[str]:
    """Return, in a child, which slow packages are imported by now."""
    return [name for name in SLOW_TO_IMPORT if name in sys.modules]


def preload(names: Iterable[str]) -> None:
    """Import here what a child had to import, so that the next child finds it there."""
    for name in names:
        if name not in sys.modules:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                importlib.import_module(name)


def is_debugging() -> None:
    """Tell the waiting parent that a person is at a prompt: standing still is no sign of a hang then."""
    if _to_parent is not None:
        os.write(_to_parent, DEBUGGING)


def stop_workers() -> None:
    """End the daemon processes of this process, as leaving Python in the usual way would."""
    multiprocessing = sys.modules.get("multiprocessing")
    for process in multiprocessing.active_children() if multiprocessing is not None else ():
        if process.daemon and getattr(process, "_parent_pid", 0) == os.getpid():
            process.terminate()


class Threads:
    """Keeps torch on one thread in this process, so that its children do not hang, and knows how many they should use.

    To be made before any code of the user runs. Torch need not be imported yet, and is not imported by this.
    """

    def __init__(self) -> None:
        self.wanted: int | None = None  # None as long as torch is not imported here
        self._home = os.getpid()
        self._undo = contextlib.ExitStack()
        now_or_when_imported("torch", self._hold, self._undo)

    def close(self) -> None:
        """Give torch back the threads it had, or was asked to have meanwhile."""
        self._undo.close()

    def _hold(self, torch: Any, undo: contextlib.ExitStack) -> None:
        if os.getpid() != self._home:
            return  # a child that imports torch itself: it has no children, and computes on the threads that it should
        real = torch.set_num_threads
        self.wanted = torch.get_num_threads()
        undo.callback(lambda: real(self.wanted or 1))
        undo.callback(setattr, torch, "set_num_threads", real)

        def set_num_threads(number: int) -> None:
            if os.getpid() == self._home:
                self.wanted = number  # for the children; running on several threads here would make them hang
            else:
                real(number)

        torch.set_num_threads = set_num_threads
        real(1)


_to_parent: int | None = None
_ended_once = False


def _end_garbage() -> None:
    """Collect garbage here, or else its finalizers, one that removes a folder say, run in the child as well.

    Not `gc.freeze`: what is frozen is hidden from the recorder, which looks for optimizers and loaders among all objects. All
    generations the first time only: with torch imported that takes 0.1 s, and it is what importing left that is old.
    """
    global _ended_once
    gc.collect(1 if _ended_once else 2)
    _ended_once = True


def _live(work: Callable[[], Payload], writer: int, threads: int | None) -> None:
    """Be the child. It never returns: nothing of the parent's stack, and none of its clean-up, runs twice."""
    global _to_parent
    _to_parent = writer
    status = 1
    try:
        _first_sign(threads)
        os.write(writer, ALIVE)
        payload = work()
        _send(writer, {"payload": payload})
        status = 0
    except BaseException:
        _send(writer, {"error": traceback.format_exc()})
    finally:
        with contextlib.suppress(BaseException):
            stop_workers()
            _flush()
        os._exit(status)


def _first_sign(threads: int | None) -> None:
    """Set the threads and do a small sum on all of them: where torch cannot go on, it hangs here and not in the test."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "set_num_threads"):
        return
    if threads is not None:
        torch.set_num_threads(threads)
    if torch.get_num_threads() > 1:
        torch.zeros(1 << 18).add_(1).sum()
        torch.zeros(256, 256).mm(torch.zeros(256, 256))


def _send(writer: int, message: Payload) -> None:
    data = json.dumps(message, default=str).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(writer, data) :]


def _wait(pid: int, reader: int, still: float) -> Ended:
    heard, exit_code = b"", None
    last_cpu, began = -1.0, time.monotonic()
    since = began
    try:
        # A grandchild may hold the pipe open, so the end of the message counts and not the end of the file.
        while not heard.endswith(b"\n") and exit_code is None:
            ready, _, _ = select.select([reader], [], [], 0.5)
            if ready:
                chunk = os.read(reader, 1 << 20)
                heard += chunk
                if chunk:
                    since = time.monotonic()
                    continue
                time.sleep(0.05)  # it closed its end and will be gone at once
            exit_code = _reaped(pid, os.WNOHANG)
            cpu = _cpu(pid)
            now = time.monotonic()
            if cpu > last_cpu:
                last_cpu, since = cpu, now
            limit = still if heard else FIRST_SIGN
            late = not heard and now - began > FIRST_SIGN_AT_MOST
            if (late or now - since > limit) and DEBUGGING not in heard.partition(b"{")[0]:
                return Ended(hung=True, unsafe=not heard, reason=_hang(bool(heard), limit))
        heard += _rest(reader)
    finally:
        if exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                if not heard.endswith(b"\n"):
                    os.kill(pid, signal.SIGKILL)
                _reaped(pid, 0)
    return _read(heard, exit_code)


def _reaped(pid: int, options: int) -> int | str | None:
    """Return the exit code of a child that has ended, None while it lives; of one whose exit code the system has thrown
    away, because this process ignores SIGCHLD or somebody else has waited for it, that it is not known."""
    try:
        done, status = os.waitpid(pid, options)
    except ChildProcessError:
        return UNKNOWN
    return os.waitstatus_to_exitcode(status) if done else None


def _read(heard: bytes, exit_code: int | str | None) -> Ended:
    line = heard.rpartition(b"\n")[0].lstrip(ALIVE + DEBUGGING)
    if not line:
        return Ended(reason=_death(exit_code))
    message = json.loads(line)
    if "error" in message:
        return Ended(reason=message["error"])
    return Ended(payload=message["payload"])


def _rest(reader: int) -> bytes:
    rest = b""
    while select.select([reader], [], [], 0)[0]:
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            break
        rest += chunk
    return rest


def _hang(begun: bool, limit: float) -> str:
    if begun:
        return f"the child stood still: no CPU time used for {limit:.0f} s"
    return f"a child of this process hangs in torch (no sign of life for {limit:.0f} s): torch has run on several threads here"


def _death(exit_code: int | str | None) -> str:
    if exit_code == UNKNOWN:
        return "the process left, and its exit code is not known"
    if isinstance(exit_code, int) and exit_code < 0:
        try:
            return f"the process died of {signal.Signals(-exit_code).name}"
        except ValueError:
            return f"the process died of signal {-exit_code}"
    return f"the process left with exit code {exit_code}"


def _cpu(pid: int) -> float:
    """Return the CPU ticks used by a process and its descendants; -1 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            numbers = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except (OSError, ValueError):
        return -1.0
    return sum(map(float, numbers[11:15])) + sum(max(0.0, _cpu(int(child))) for child in children)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.flush()
