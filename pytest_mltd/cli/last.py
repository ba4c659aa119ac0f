"""The folder of the last run, ``.mltd/last``: its trace, diagnosis and command. The run before it is ``.mltd/previous``.

Of a run in several processes each has its own: ``.mltd/last`` is that of rank 0, ``.mltd/last-rank1`` that of the next.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRACE, DIAGNOSIS, COMMAND = "run.mltd", "diagnosis.json", "run.json"


class Last:
    """A run's folder, from the moment it begins. A killed job leaves the command and the trace up to there."""

    def __init__(self, folder: Path, command: Mapping[str, Any]) -> None:
        self.folder = folder
        self._command = dict(command)

    @property
    def trace(self) -> Path:
        return self.folder / TRACE

    def end(self, diagnosis: Mapping[str, Any] | None, **outcome: Any) -> str:
        """Write down how it ended; returns why it could not be, or nothing."""
        found = read_command(self.folder).get("token")
        if found is None:
            return f"{self.folder} was removed meanwhile"
        if found != self._command["token"]:
            return "another mltd run has begun here meanwhile"
        try:
            if diagnosis is not None:
                _write(self.folder / DIAGNOSIS, diagnosis)
            _write(self.folder / COMMAND, {**self._command, "ended": _now(), **outcome})
        except OSError as error:
            return f"{self.folder} cannot be written any more ({error.strerror})"
        return ""


def begin(project: Path, command: Mapping[str, Any], rank: int = 0) -> Last:
    """Make ``.mltd/last`` in a project for a new run; the last one (of the same rank) is moved aside whole.

    Raises:
        OSError: the folder cannot be written.
    """
    home = project / ".mltd"
    home.mkdir(exist_ok=True)
    if not (home / ".gitignore").exists():
        (home / ".gitignore").write_text("# what mltd keeps is for this machine; tests and ledgers are elsewhere\n*\n")
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=home))
    last = _fill(fresh, command)
    of_rank = f"-rank{rank}" if rank else ""
    last.folder = home / f"last{of_rank}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(last.folder, _free(home, f"previous{of_rank}"))
    os.rename(fresh, last.folder)
    return last


def begin_elsewhere(command: Mapping[str, Any]) -> Last:
    """Make a folder for a run outside of its project, which cannot be written."""
    return _fill(Path(tempfile.mkdtemp(prefix="mltd-")), command)


def read_command(folder: Path) -> dict[str, Any]:
    """Return what is known of a run's command; nothing if it was not kept."""
    return _read(folder / COMMAND)


def read_diagnosis(folder: Path) -> dict[str, Any]:
    """Return the diagnosis that was kept, or nothing."""
    return _read(folder / DIAGNOSIS)


def _fill(folder: Path, command: Mapping[str, Any]) -> Last:
    folder.chmod(0o755)
    last = Last(folder, {**command, "began": _now(), "ended": None, "token": secrets.token_hex(8)})
    _write(folder / COMMAND, last._command)
    return last


def _free(home: Path, name: str) -> Path:
    """Return where the last run goes: ``previous``, emptied of the run before it and of nothing else."""
    previous = home / name
    for name in (TRACE, DIAGNOSIS, COMMAND):
        (previous / name).unlink(missing_ok=True)
    try:
        previous.rmdir()
    except FileNotFoundError:
        pass
    except OSError:  # somebody keeps something in it
        return home / f"{name}-{secrets.token_hex(4)}"
    return previous


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
