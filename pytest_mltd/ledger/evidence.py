"""The ledger of an incident: one JSON line for each outcome, appended and never changed, each line sealed to the one before.

It lies beside the tests, in `incidents/<incident>.jsonl`: visible, reviewed and committed with the tests it speaks of, so that
whoever has the tests has what they showed. Lines diff and merge in git (``*.jsonl merge=union`` in `.gitattributes` keeps both
sides); a binary store would not.

A line is ``{"schema": 1, "prev": …, "evidence": {…}, "digest": …}``: ``digest`` is the sha256 of the line up to it, ``prev``
the digest of an earlier line, normally the one above. So a line that was edited, or taken out from between others, is noticed.
What was cut off at the end is noticed against git. Whoever recomputes every digest and the git history can still lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pytest_mltd.core.incidents import Evidence, check_name, evidence_from_dict
from pytest_mltd.ledger.files import LedgerError, appending, read_bytes
from pytest_mltd.ledger.provenance import committed_bytes, skipped

SCHEMA = 1
MAX_RECORD = 2**20  # bytes of one line; a finding is a few hundred, so a longer line is not ours
FOLDER = "incidents"
FIRST = "0" * 64  # what the first line's ``prev`` says
MAX_FOLDERS = 20_000  # looked through for a ledger; a repository with more names its folder
SEAL = re.compile(rb',"digest":"([0-9a-f]{64})"\}\Z')

ProblemKind = Literal["torn", "foreign", "edited", "missing", "removed", "merged"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something amiss in a ledger, at a line (from 1; 0 for the file). ``str()`` is a sentence.

    torn: a line was cut short. foreign: it is no record of ours. edited: it was changed after it was written. missing: the
    line it follows is gone. removed: git has a line that the file has not. merged: two lines follow the same one, as after a
    merge; nothing is wrong then.
    """

    kind: ProblemKind
    line: int
    path: str
    text: str

    @property
    def harmless(self) -> bool:
        return self.kind == "merged"

    def __str__(self) -> str:
        return f"{self.path}{f' line {self.line}' if self.line else ''}: {self.text}"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a ledger holds: its evidence in recorded order, and what is amiss."""

    path: Path
    evidence: tuple[Evidence, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    raw: bytes
    digest: str = ""
    prev: str = ""
    evidence: Evidence | None = None
    problem: ProblemKind | None = None
    text: str = ""


def ledger_path(rootdir: str | Path, incident: str, *, tests: str | Path | None = None) -> Path:
    """Return where the evidence of an incident is, or will be, kept.

    One that exists anywhere below ``rootdir`` is used again. A new one comes beside the tests: in ``tests``, the folder of
    the first test of the incident, else in ``rootdir/tests`` if there is one, else in ``rootdir``.

    Raises:
        ValueError: ``incident`` cannot be the name of a file.
        LedgerError: there are two ledgers of that name.
    """
    check_name(incident)
    found = [p for p in ledgers_below(rootdir) if p.stem == incident]
    if len(found) > 1:
        raise LedgerError(
            f"{found[0]}: there is a second ledger of {incident!r}, {found[1]}; rename one of them, or begin below its folder"
        )
    if found:
        return found[0]
    root = Path(rootdir)
    beside = Path(tests) if tests is not None else root / "tests" if (root / "tests").is_dir() else root
    return beside / FOLDER / f"{incident}.jsonl"


def ledgers_below(rootdir: str | Path) -> tuple[Path, ...]:
    """Return every `incidents/*.jsonl` below a folder, in order; hidden folders and environments are not looked into."""
    found: list[Path] = []
    for looked, (folder, names, files) in enumerate(os.walk(os.path.abspath(rootdir))):
        names[:] = sorted(n for n in names if not skipped(folder, n))
        if Path(folder).name == FOLDER:
            found += [Path(folder, name) for name in sorted(files) if name.endswith(".jsonl")]
        if looked > MAX_FOLDERS:
            break
    return tuple(found)


def append(path: str | Path, evidence: Evidence) -> tuple[Problem, ...]:
    """Add one record; it is on the disk when this returns. Returns what was amiss at the file's end.

    A torn last line, left by a process that was killed, is closed off on a line of its own and reported; the records
    before it are not touched.

    Raises:
        LedgerError: the folder cannot be written, the disk is full, or the ledger was written by a newer version.
    """
    with appending(path) as file:
        lines = list(_lines(file.tail(2 * MAX_RECORD + 2)))
        if not any(line.digest for line in lines):
            lines = list(_lines(file.tail(2**30)))
        _refuse_newer(Path(path), lines)
        prev = next((line.digest for line in reversed(lines) if line.digest), FIRST)
        record = seal(evidence, prev)
        torn = file.append(record)
    return (_torn(Path(path), 0, lines[-1].raw),) if torn and not lines[-1].digest else ()


def read(path: str | Path) -> Ledger:
    """Return all evidence that can be read, and what is amiss. A line that cannot be read costs no other line.

    Raises:
        LedgerError: the file cannot be read at all, or a newer version wrote in it.
    """
    path = Path(path)
    lines = list(_lines(read_bytes(path)))
    _refuse_newer(path, lines)
    problems = [*_unreadable(path, lines), *_broken_chain(path, lines)]
    # A line that a merge has doubled was one run, not two.
    once = {line.digest: line.evidence for line in lines if line.evidence is not None}
    return Ledger(path, tuple(once.values()), tuple(sorted(problems, key=lambda p: p.line)))


def verify(path: str | Path) -> tuple[Problem, ...]:
    """Return what is amiss in a ledger, also against the last commit: a line that git has and the file has not.

    Raises:
        LedgerError: as for `read`; for a file that is gone it says whether git still has it.
    """
    path = Path(path)
    committed = committed_bytes(path)
    if not path.exists() and committed is not None:
        raise LedgerError(
            f"{path}: the ledger is gone, but git has it; bring it back with: git checkout HEAD -- '{path}'"
        )
    problems = list(read(path).problems)
    if committed is not None:
        here = {line.raw for line in _lines(read_bytes(path))}
        for line in _lines(committed):
            if line.raw not in here:
                text = f"line {line.number} of the committed file is gone or changed; see: git diff HEAD -- '{path}'"
                problems.append(Problem("removed", 0, str(path), text))
    return tuple(problems)


def seal(evidence: Evidence, prev: str) -> bytes:
    """Return the line of a record, without the line feed."""
    for kept in _shortened(evidence):
        body = {"schema": SCHEMA, "prev": prev, "evidence": kept.as_dict()}
        text = json.dumps(body, separators=(",", ":"), allow_nan=False).encode("ascii")
        if len(text) < MAX_RECORD - 100:
            break
    return text[:-1] + b',"digest":"' + hashlib.sha256(text).hexdigest().encode("ascii") + b'"}'


def _shortened(evidence: Evidence) -> Iterator[Evidence]:
    """Yield the evidence whole, then with less and less of what can be done without."""
    yield evidence
    bare = tuple(replace(f, details={}, table=None) for f in evidence.findings)
    yield replace(evidence, findings=bare)
    failing_first = sorted(bare, key=lambda f: not f.failed)[:20]
    short = [
        replace(f, headline=f.headline[:500], shows="", next_step="", looked_at="", culprit=f.culprit[:200], allowed=())
        for f in failing_first
    ]
    yield replace(evidence, findings=tuple(short), metrics={}, environment={})
    cut = replace(evidence, findings=(), metrics={}, environment={}, text=evidence.text[:1000])
    yield replace(cut, nodeid=cut.nodeid[:1000], claim=cut.claim[:1000], reason=cut.reason[:1000])


def _lines(data: bytes) -> Iterator[_Line]:
    for number, raw in enumerate(data.split(b"\n"), start=1):
        raw = raw.removesuffix(b"\r")  # git on Windows may have changed the line ends
        if raw.strip():
            yield _parse(number, raw)


def _parse(number: int, raw: bytes) -> _Line:
    sealed = SEAL.search(raw)
    if len(raw) > MAX_RECORD:
        return _Line(number, raw, problem="foreign", text=f"a line of {len(raw):,} bytes is no record of ours")
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        begins_like_ours = raw[:10] == b'{"schema":'[: len(raw)]
        kind: ProblemKind = "torn" if sealed is None and begins_like_ours else "foreign"
        return _Line(number, raw, problem=kind, text=f"it is not JSON ({str(error)[:80]})")
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int) or "evidence" not in data:
        return _Line(number, raw, problem="foreign", text="it is not a record of a ledger")
    if data["schema"] > SCHEMA:
        return _Line(number, raw, prev=str(data.get("prev", "")), text=f"newer {data['schema']}")
    return _record(number, raw, data, sealed.group(1).decode() if sealed else "")


def _record(number: int, raw: bytes, data: dict[str, Any], said: str) -> _Line:
    prev = str(data.get("prev", ""))
    try:
        evidence = evidence_from_dict(data["evidence"])
    except (ValueError, RecursionError) as error:
        return _Line(
            number, raw, prev=prev, problem="foreign", text=f"its evidence cannot be read ({str(error)[:200]})"
        )
    body = SEAL.sub(b"}", raw)
    digest = hashlib.sha256(body).hexdigest()
    if digest != said:
        text = "it was changed after it was written; its evidence is not counted"
        return _Line(number, raw, digest=said, prev=prev, problem="edited", text=text)
    return _Line(number, raw, digest=digest, prev=prev, evidence=evidence)


def _refuse_newer(path: Path, lines: list[_Line]) -> None:
    for line in lines:
        if line.text.startswith("newer ") and line.problem is None:
            raise LedgerError(
                f"{path}: a newer pytest-mltd wrote it (schema {line.text.removeprefix('newer ')}, this one knows {SCHEMA}); "
                "upgrade with: pip install -U pytest-mltd"
            )


def _unreadable(path: Path, lines: list[_Line]) -> Iterator[Problem]:
    for line in lines:
        if line.problem == "torn":
            yield _torn(path, line.number, line.raw)
        elif line.problem is not None:
            yield Problem(line.problem, line.number, str(path), line.text)


def _torn(path: Path, number: int, raw: bytes) -> Problem:
    text = f"cut short after {len(raw):,} bytes, by a killed process or a full disk; it is kept apart, the others are whole"
    return Problem("torn", number, str(path), text)


def _broken_chain(path: Path, lines: list[_Line]) -> Iterator[Problem]:
    seen, followed = {FIRST}, set()
    for line in lines:
        if not line.digest:
            continue
        if line.digest in seen:
            yield Problem("edited", line.number, str(path), "it stands in the file twice and counts once")
        elif line.prev not in seen:
            yield Problem("missing", line.number, str(path), "a line that stood before it is gone or was moved")
        elif line.prev in followed:
            text = "it follows the same line as another, as after a merge of two branches; both are counted"
            yield Problem("merged", line.number, str(path), text)
        seen.add(line.digest)
        followed.add(line.prev)
