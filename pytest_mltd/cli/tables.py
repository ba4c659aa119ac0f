"""``mltd check`` on tables: each file is a split."""

from __future__ import annotations

import difflib
import inspect
import itertools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mltd.cli.output import FINDINGS, HEALTHY, MISUSE, Misuse, Output
from pytest_mltd.cli.writing import free_name, tables_test, test_file, write_new

if TYPE_CHECKING:
    from pytest_mltd.core.findings import Diagnosis, Finding

_ENDINGS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow", ".feather", ".gz", ".bz2", ".zst", ".xz", ".zip")


def check_tables(paths: Sequence[str], columns: Mapping[str, str], write: str | None, output: Output) -> int:
    """Ask whether the tables leak into one another, and return the exit code."""
    for path in paths:
        _refuse_missing(path)
        _refuse_script(path)
    if twice := next((path for path in paths if list(paths).count(path) > 1), None):
        raise Misuse(f"{twice!r} is given twice")
    if len(paths) < 2 and "label" not in columns:
        raise Misuse(f"{paths[0]!r} is no saved run; for one table give --label, or give the other splits")
    splits = _named(paths)
    diagnosis = _ask(splits, columns)
    try:  # before anything is said: whoever reads may leave early, as head does
        written = None if write is None else _write(splits, columns, diagnosis, write)
    finally:
        output.say(str(diagnosis))
    keep = None
    if written is not None:
        output.say(f"written: {written}")
    elif diagnosis.failed:
        options = [f"--{name} {shlex.quote(value)}" for name, value in columns.items()]
        keep = " ".join(["mltd check", shlex.join(paths), *options, "--write-test", free_name(Path.cwd(), "data")])
        output.say(f"keep it: {keep}")
    code = FINDINGS if diagnosis.failed else HEALTHY if diagnosis.findings else MISUSE
    return output.end(code, diagnosis=diagnosis.as_dict(), written=written, keep=keep)


def _ask(splits: Mapping[str, str], columns: Mapping[str, str]) -> Diagnosis:
    from pytest_mltd.checks.tables.splits import check_leakage
    from pytest_mltd.core.extras import MissingExtra

    try:
        return check_leakage(dict(splits), **columns)  # type: ignore[arg-type]
    except (ValueError, TypeError, OSError, MissingExtra) as error:
        raise Misuse(str(error)) from None


def _write(splits: Mapping[str, str], columns: Mapping[str, str], diagnosis: Diagnosis, write: str) -> str:
    if not diagnosis.failed:
        raise Misuse("--write-test: no question failed, so there is no test that would fail now")
    file = test_file(write)
    failed = {finding.id: finding for finding in reversed(diagnosis.failed)}
    asked = [question for finding in reversed(failed.values()) for question in _questions(finding, splits, columns)]
    write_new(file, write, tables_test(file, Path.cwd(), splits, asked))
    return write


def _questions(
    finding: Finding, splits: Mapping[str, str], columns: Mapping[str, str]
) -> Iterator[tuple[Finding, str, tuple[str, ...], dict[str, str]]]:
    """Yield the assertions that fail for one finding: which, of which two splits, with which columns."""
    from pytest_mltd.core.asking import discover, info

    check = next(c for c in discover("pytest_mltd.checks.tables", "splits") if info(c).id == finding.id)
    taken = {name: value for name, value in columns.items() if name in inspect.signature(check).parameters}
    name = f"assert_no_{finding.id.rpartition('.')[2]}"
    first, *others = splits
    if _is_of_one_table(check):
        alone = not others or check(splits[first], **taken).failed
        yield finding, name, (first,) if alone else (first, others[0]), taken
        return
    for pair in itertools.combinations(splits, 2):
        # With more than two splits, the ones that are meant are found by asking each pair.
        found = finding if len(splits) == 2 else check(*(splits[split] for split in pair), **taken)
        if found.failed:
            yield found, name, pair, taken


def _is_of_one_table(check: Callable[..., Finding]) -> bool:
    """Whether a question can be asked of train alone; test then only adds to the evidence."""
    test = inspect.signature(check).parameters.get("test")
    return test is not None and test.default is not test.empty


def _named(paths: Sequence[str]) -> dict[str, str]:
    """Return a name for each split: that of its file, or with its folder where two files have the same."""
    stems = [_stem(path) for path in paths]
    names = [
        stem if stems.count(stem) == 1 else _stem(os.path.dirname(path)) + "_" + stem
        for stem, path in zip(stems, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        raise Misuse(
            f"two splits have one name: {next(n for n in names if names.count(n) > 1)!r}; each is named after its file"
        )
    return dict(zip(names, paths, strict=True))


def _stem(path: str) -> str:
    name = os.path.basename(os.path.normpath(path))
    while name.endswith(_ENDINGS) and name != "":
        name = name.rpartition(".")[0]
    return name or "table"


def _refuse_script(path: str) -> None:
    if path.endswith(".py"):
        raise Misuse(f"{path!r} is a script: mltd run {shlex.quote(path)}")


def _refuse_missing(path: str) -> None:
    place = Path(path)
    if place.exists() or "://" in path:
        return
    near = difflib.get_close_matches(place.name, [p.name for p in place.parent.glob("*")], n=1)
    raise Misuse(f"nothing at {path!r}" + (f"; the nearest is {str(place.with_name(near[0]))!r}" if near else ""))
