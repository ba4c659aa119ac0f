"""The pytest file that ``mltd check --write-test`` leaves: short, readable, worth keeping."""

from __future__ import annotations

import contextlib
import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_mltd.cli.output import Misuse
from pytest_mltd.core.findings import Finding

_WIDTH = 110  # columns; a longer call is broken at its arguments


def free_name(project: Path, about: str = "training") -> str:
    """Return a name for the test, under the project, that no file has."""
    names = [f"tests/test_{about}.py", *(f"tests/test_{about}_{k}.py" for k in range(2, 1000))]
    return next(name for name in names if not (project / name).exists())


def run_test(
    file: Path, project: Path, command: Mapping[str, Any], failed: Sequence[Finding], roots: Sequence[Finding]
) -> str:
    """Return a test that runs the program of a saved run again and asks the questions that failed.

    Args:
        file: where the test will lie; what it names is found from there.
        project: the folder the program was run in.
        command: what was kept of the run.
        failed: the findings that the test asks for; none if the program only raised.
        roots: those of them that no other explains; the reason that a reader is given.
    """
    script, module = command.get("script"), command.get("module")
    words = [str(word) for word in command.get("arguments", ())]
    spoken = " ".join(["python", *([script] if script else ["-m", str(module)]), *words])
    call = _call("    run = mltd.run(" if failed else "    mltd.run(", _run_arguments(command, words, project))
    asking = _call(
        "    mltd.assert_healthy(", ["run", f"only=[{', '.join(dict.fromkeys(_quoted(f.id) for f in failed))}]"]
    )
    fault = "what mltd found in it" if failed else "the error that it ends with"
    about = f"Fails while `{_in_docstring(spoken)}` has {fault}; passes once it is mended, and stays as the monitor."
    name = _identifier(Path(script).stem if script else str(module))
    body = [*_comments(roots), "    monkeypatch.chdir(ROOT)", *call, *(asking if failed else ())]
    return _file(file, project, about, ["", "", f"def test_{name}_is_healthy(monkeypatch):", *body])


def tables_test(
    file: Path,
    project: Path,
    splits: Mapping[str, str],
    asked: Iterable[tuple[Finding, str, Sequence[str], Mapping[str, Any]]],
) -> str:
    """Return a test that reads tables again and asks the questions that failed.

    Args:
        file: where the test will lie.
        project: the folder from which the tables are named.
        splits: name -> path of each table.
        asked: for each failing finding the assertion's name, the names of the splits it takes, its other arguments.
    """
    asked = list(asked)
    used = [name for name in splits if any(name in names for _, _, names, _ in asked)]
    variables = {name: _identifier(name).upper() for name in splits}
    lines = [f"{variables[name]} = {_place(splits[name], project)}" for name in used]
    for assertion in dict.fromkeys(assertion for _, assertion, _, _ in asked):
        lines += ["", "", f"def test_{assertion.removeprefix('assert_')}():"]
        for finding, _, names, arguments in (question for question in asked if question[1] == assertion):
            call = [*(variables[name] for name in names), *(f"{k}={_quoted(str(v))}" for k, v in arguments.items())]
            lines += [*_comments([finding]), *_call(f"    mltd.{assertion}(", call)]
    named = " and ".join(Path(splits[name]).name for name in used)
    leak = "share what they must not" if len(used) > 1 else "tells its label too well"
    end = f"passes once {'they are' if len(used) > 1 else 'it is'} mended, and stays as the monitor."
    return _file(file, project, f"Fails while {_in_docstring(named)} {leak}; {end}", lines)


def test_file(write: str) -> Path:
    """Return the file that is to be written.

    Raises:
        Misuse: it cannot be a Python file.
    """
    file = Path(write).absolute()
    if file.suffix != ".py" or file.is_dir():
        raise Misuse(f"--write-test: a Python file is needed, as in tests/test_training.py, not {write!r}")
    return file


def write_new(file: Path, shown: str, text: str) -> None:
    """Write a file that is not there yet, its folder too if need be. ``shown`` is its path as the user said it.

    Raises:
        Misuse: it is there, or cannot be written; nothing was changed.
    """
    try:
        with contextlib.suppress(FileExistsError):  # a file where the folder should be: opening says so
            file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        free = next(p for k in range(2, 1000) if not (p := file.with_name(f"{file.stem}_{k}.py")).exists())
        other = Path(shown).with_name(free.name)
        raise Misuse(f"--write-test: {shown!r} is there and stays as it is; --write-test {other} is free") from None
    except OSError as error:
        raise Misuse(f"--write-test: cannot write {shown!r} ({error.strerror})") from error


def _file(file: Path, project: Path, about: str, rest: Sequence[str]) -> str:
    lines = [*_docstring(about), "", "from pathlib import Path", "", "import pytest_mltd as mltd", ""]
    return "\n".join([*lines, f"ROOT = {_root(file, project)}", *rest]) + "\n"


def _root(file: Path, project: Path) -> str:
    folder, project = Path(os.path.realpath(file)).parent, Path(os.path.realpath(project))
    if folder.is_relative_to(project):
        return f"Path(__file__).resolve().parents[{len(folder.relative_to(project).parts)}]"
    return f"(Path(__file__).resolve().parent / {_quoted(os.path.relpath(project, folder))}).resolve()"


def _word(word: str, project: Path) -> str:
    """Return an argument as source; a path in the project is said from its root, so that it is right elsewhere too."""
    inside = str(project)
    if inside in word and inside != "/":
        return "f" + _quoted(word.replace("{", "{{").replace("}", "}}").replace(inside, "{ROOT}"))
    return _quoted(word)


def _run_arguments(command: Mapping[str, Any], words: Sequence[str], project: Path) -> list[str]:
    """Return the arguments of `run` as source, those at their defaults left out where that says the same."""
    script, module = command.get("script"), command.get("module")
    call = [] if script is None else [_word(os.path.relpath(project / script, project), project)]
    call += [_word(word, project) for word in words]
    call += [] if module is None else [f"module={_quoted(module)}"]
    call += [f"{name}={command.get(name)!r}" for name in ("steps", "seed")]
    call += [f"slice={command['slice']!r}"] if command.get("slice") is not None else []
    call += [f"level={_quoted(command['level'])}"] if command.get("level", "default") != "default" else []
    return call


def _place(path: str, project: Path) -> str:
    if not os.path.exists(project / path):  # a pattern, an address of a store
        return _quoted(path)
    return f"ROOT / {_quoted(os.path.relpath(project / path, project))}"


def _comments(findings: Iterable[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        text = " ".join(f"{finding.id}: {finding.headline}".split())
        lines += [f"    # {line}" for line in textwrap.wrap(text, _WIDTH - 6, max_lines=2, placeholder=" …")]
    return lines


def _call(begin: str, arguments: Sequence[str]) -> list[str]:
    line = begin + ", ".join(arguments) + ")"
    if len(line) <= _WIDTH:
        return [line]
    return [begin, *(f"        {argument}," for argument in arguments), "    )"]


def _docstring(about: str) -> list[str]:
    """Return a docstring on one line, or broken after its first clause."""
    line = f'"""{about}"""'
    if len(line) <= _WIDTH:
        return [line]
    first, _, rest = about.partition("; ")
    return [f'"""{first};', rest, '"""']


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _identifier(name: str) -> str:
    word = re.sub(r"\W+", "_", name).strip("_").lower() or "table"
    return f"_{word}" if word[0].isdigit() else word
