"""Files that survive a killed process, a full disk and a second writer: whole replacement, and one appended line.

Nothing here shortens or deletes a file. A line that was torn stays where it is, closed off on a line of its own, so that the
next record never runs into it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK_TIMEOUT = 30.0  # seconds; a writer holds the lock for one fsync, so a longer wait means a process that hangs
MAX_FILE = 64 * 2**20  # bytes; our files are kept in git and read by people, so a larger one is not ours


class LedgerError(Exception):
    """A file of the ledger cannot be read or written. The text is one sentence that names the path and the remedy."""

    # As for `CheckFailed`: without the module's name the short summary has room for the sentence.
    __module__ = "builtins"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self).__name__, str(self))


def write_atomic(path: str | Path, text: str) -> Path:
    """Replace a file as a whole: whoever reads it, or kills us, sees the old text or the new one, never a part.

    Raises:
        LedgerError: the folder cannot be written, the disk is full, or the path is no plain file.
    """
    path = Path(os.path.realpath(path))  # replacing a link would cut the file off that it points to
    _refuse_unless_plain(path)
    # The name is random, so that two writers never share a temporary file.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "x", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            shutil.copymode(path, part)
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise LedgerError(_refused(path, error)) from error
    return path


def read_text(path: str | Path) -> str:
    """Return a file's text; bytes that are not UTF-8 become replacement signs.

    Raises:
        LedgerError: it is not there, not a plain file, too large to be ours, or may not be read.
    """
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: str | Path) -> bytes:
    """Return a file's bytes, at most `MAX_FILE` of them.

    Raises:
        LedgerError: as for `read_text`.
    """
    path = Path(path)
    _refuse_unless_plain(path)
    try:
        if path.stat().st_size > MAX_FILE:
            raise LedgerError(
                f"{path}: larger than {MAX_FILE // 2**20} MB, so it is not a file that mltd wrote; move it away"
            )
        return path.read_bytes()
    except OSError as error:
        raise LedgerError(
            f"{path}: cannot be read ({error.strerror or error}); check its name and permissions"
        ) from error


@contextlib.contextmanager
def appending(path: str | Path) -> Iterator[Appender]:
    """Hold a file open for appending, the only writer among all processes of this machine that use this function.

    Raises:
        LedgerError: the folder cannot be written, the path is no plain file, or another process kept the lock too long.
    """
    path = Path(path)
    _refuse_unless_plain(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    except OSError as error:
        raise LedgerError(_refused(path, error)) from error
    try:
        _lock(descriptor, path)
        if new:
            _sync_folder(path.parent)
        yield Appender(path, descriptor)
    finally:
        os.close(descriptor)  # closing gives the lock back


class Appender:
    """A locked file at whose end lines are added. `appending` makes it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def tail(self, most: int) -> bytes:
        """Return the last bytes of the file, at most so many."""
        size = os.fstat(self._descriptor).st_size
        os.lseek(self._descriptor, max(0, size - most), os.SEEK_SET)
        parts = []
        while part := os.read(self._descriptor, 2**20):
            parts.append(part)
        return b"".join(parts)

    def append(self, line: bytes) -> bool:
        """Add one line in a single write and wait until it is on the disk.

        Returns True when the file ended in a torn line, which is now closed off on a line of its own.

        Raises:
            LedgerError: the disk is full or failing. What was there before stays readable.
        """
        if b"\n" in line:
            raise ValueError("line: one line has no line feed inside")
        torn = self.tail(1) not in (b"", b"\n")
        data = (b"\n" if torn else b"") + line + b"\n"
        try:
            written = os.write(self._descriptor, data)
            if written == len(data):
                os.fsync(self._descriptor)
        except OSError as error:
            raise LedgerError(_refused(self.path, error)) from error
        if written < len(data):
            raise LedgerError(
                f"{self.path}: the disk is full, this record was not kept (earlier ones are); free some space and run again"
            )
        return torn


def _rebuild(name: str, text: str) -> LedgerError:
    waiting = [LedgerError]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == name:
            return kind(text)
        waiting += kind.__subclasses__()
    return LedgerError(text)


def _refuse_unless_plain(path: Path) -> None:
    """Opening a pipe would wait for ever, and replacing a device would destroy it."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a plain file"
        raise LedgerError(f"{path}: is {kind}; move it away, mltd needs a file there")


def _refused(path: Path, error: OSError) -> str:
    folder = path.parent
    reason = error.strerror or str(error)
    return f"{path}: cannot be written ({reason}); make {folder} a writable folder with free space, or run as its owner"


def _sync_folder(folder: Path) -> None:
    """Make a new name last through a power cut, where the system can do that (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            raise LedgerError(
                f"{path}: another process has held it for {LOCK_TIMEOUT:.0f} s; end that process and run again"
            )
        time.sleep(0.02)


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return _try_lock_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: O_APPEND still keeps every line whole
    return True


def _try_lock_windows(descriptor: int) -> bool:  # pragma: no cover
    import importlib

    msvcrt = importlib.import_module("msvcrt")
    os.lseek(descriptor, 2**30, os.SEEK_SET)  # a byte that no record uses; locked bytes could not be read by others
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
