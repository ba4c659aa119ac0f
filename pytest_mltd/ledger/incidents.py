"""An incident from disk: its ledger, what people wrote beside it, and the report's file.

People write in `incidents/<incident>.toml`, every entry optional::

    summary = "Validation AUC rose to 0.998 overnight."
    started = 2026-11-02
    owners = { "*" = "data team", H1 = "Ada" }

Whatever is missing there is named as a gap in the report; nothing of it can change what the evidence shows.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_mltd.core.incidents import Incident, Story, check_name, incident_from
from pytest_mltd.ledger import evidence as ledger
from pytest_mltd.ledger.files import LedgerError, read_text, write_atomic

MARK = "<!-- written by mltd report: edits are lost at the next run -->"
LISTS = ("contributing", "remaining_risks", "prevention")
MAPPINGS = ("constraints", "owners")


@dataclass(frozen=True, slots=True)
class Opened:
    """An incident as found on disk. ``problems`` are sentences: about the ledger's lines, then about people's entries."""

    incident: Incident
    story: Story
    problems: tuple[str, ...]
    path: Path


def open_incident(rootdir: str | Path, name: str) -> Opened:
    """Return an incident with everything that is on disk about it.

    Raises:
        ValueError: ``name`` cannot be the name of an incident.
        LedgerError: there is no such incident (the nearest name is said), or its ledger cannot be read.
    """
    check_name(name)
    path = ledger.ledger_path(rootdir, name)
    if not path.exists():
        raise LedgerError(_unknown(rootdir, name))
    found = ledger.verify(path)
    story, complaints = read_story(path.with_suffix(".toml"))
    incident = incident_from(name, ledger.read(path).evidence, story.lowered)
    # A report is committed: it says the same whoever's folder it was made in.
    here = f"{path.parent}{os.sep}"
    return Opened(incident, story, tuple(str(p).replace(here, "") for p in (*found, *complaints)), path)


def incidents_in(rootdir: str | Path) -> tuple[str, ...]:
    """Return the names of the incidents that have a ledger below a folder."""
    return tuple(sorted({p.stem for p in ledger.ledgers_below(rootdir)}))


def save_report(opened: Opened, text: str) -> Path:
    """Write the report beside its ledger, as `incidents/<incident>.md`; returns the path.

    Raises:
        LedgerError: a file of that name is there that mltd did not write, or the folder cannot be written.
    """
    path = opened.path.with_suffix(".md")
    if path.exists() and MARK not in read_text(path):
        raise LedgerError(
            f"{path}: mltd did not write this file and leaves it alone; move it away, or print the report"
        )
    return write_atomic(path, f"{MARK}\n\n{text}")


def read_story(path: str | Path) -> tuple[Story, tuple[str, ...]]:
    """Return what people wrote of an incident, and what is wrong with it, as sentences. A missing file is an empty story."""
    path = Path(path)
    if not path.exists():
        return Story(), ()
    try:
        data = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        return Story(), (f"{path}: not readable as TOML ({error}); nothing in it is counted",)
    except (LedgerError, RecursionError) as error:
        return Story(), (f"{error or 'too deeply nested'}",)
    return story_from(data, str(path))


def story_from(data: Mapping[str, Any], path: str = "story") -> tuple[Story, tuple[str, ...]]:
    """Return the story in parsed TOML, entry by entry: one that is wrong is named and left out, the others count."""
    values: dict[str, Any] = {}
    complaints: list[str] = []
    for key, value in data.items():
        try:
            name = "lowered" if key == "confidence" else key
            values[_known(name)] = _entry(name, value)
        except ValueError as error:
            complaints.append(f"{path}: {error}")
    return Story(**values), tuple(complaints)


def _known(key: str) -> str:
    names = [f.name for f in dataclasses.fields(Story)]
    if key not in names:
        near = difflib.get_close_matches(key, names, 1)
        raise ValueError(f"unknown entry {key!r}{f'; the nearest is {near[0]!r}' if near else ''}")
    return key


def _entry(key: str, value: Any) -> Any:
    if key == "lowered":
        return _confidences(value)
    if key in MAPPINGS:
        if not isinstance(value, Mapping):
            raise ValueError(f'{key}: a table is needed, as in {key} = {{ "…" = "…" }}')
        texts = {str(k): _text(f"{key}.{k}", v) for k, v in value.items()}
        return texts if key == "owners" else {re.sub(r"[ -]+", "_", k.strip().lower()): v for k, v in texts.items()}
    if key in LISTS:
        return tuple(_text(key, v) for v in (value if isinstance(value, list) else [value]))
    return _text(key, value)


def _text(key: str, value: Any) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bool | list | dict) or value is None:
        raise ValueError(f"{key}: text is needed, not {value!r}")
    return str(value).strip()


def _confidences(value: Any) -> dict[str, tuple[float, str]]:
    """Read ``[confidence] H1 = { value = 0.6, reason = "…" }``: without a reason nothing is lowered."""
    if not isinstance(value, Mapping):
        raise ValueError('confidence: a table is needed, as in H1 = { value = 0.6, reason = "…" }')
    found = {}
    for hypothesis, said in value.items():
        wanted = said.get("value") if isinstance(said, Mapping) else None
        reason = said.get("reason") if isinstance(said, Mapping) else None
        if not isinstance(wanted, int | float) or isinstance(wanted, bool) or not 0.0 <= wanted <= 1.0:
            raise ValueError(f"confidence.{hypothesis}: a value within 0 and 1 is needed, not {wanted!r}")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"confidence.{hypothesis}: lowering needs a reason in words")
        found[str(hypothesis)] = (float(wanted), reason.strip())
    return found


def _unknown(rootdir: str | Path, name: str) -> str:
    known = incidents_in(rootdir)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"the nearest is {near[0]!r}" if near else f"there are {', '.join(known)}" if known else "there is none yet"
    looked = f"no file {ledger.FOLDER}/{name}.jsonl anywhere below {os.path.abspath(rootdir)}"
    return f"no incident {name!r}; {hint} ({looked}). A marked test makes it: pytest --mltd-incident {name}"
