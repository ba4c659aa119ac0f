"""A function taken to a fresh interpreter: found again by its name or its source, never pickled.

A function of a module is imported there. A lambda or local function is compiled again from its own lines, with what it closes
over as long as that is plain data, a module, or another such function.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from pytest_mltd.core.trials import Condition
from pytest_mltd.probes import children
from pytest_mltd.probes.hashes import closed_over
from pytest_mltd.probes.witness import is_users

DEEP = 4  # a function that closes over a function, and so on
ORDERLY = {
    "sorted",
    "len",
    "min",
    "max",
    "any",
    "all",
    "frozenset",
    "set",
    "isinstance",
    "bool",
}  # no order comes out of these


class _Not(Exception):
    """Why a function cannot be taken along."""


def forbids(function: Callable[..., Any]) -> str:
    """Return why a function cannot be found again in a fresh interpreter, or nothing."""
    try:
        _packed(function, 0)
    except _Not as reason:
        return str(reason)
    return ""


def run_fresh(
    function: Callable[..., Any], condition: Mapping[str, Any], folder: Path, before_ns: int, hash_seed: int
) -> Mapping[str, Any]:
    """Run a training in a new interpreter and return what `repeating.run_child` returned there.

    Raises:
        ValueError: the interpreter did not come to its end.
    """
    job = {
        "function": _packed(function, 0),
        "path": [p or os.getcwd() for p in sys.path],
        "condition": dict(condition),
        "folder": str(folder),
        "before_ns": before_ns,
        "threads": _threads(),
    }
    (folder / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    with open(folder / "output", "w+b") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pytest_mltd.probes.carrying", str(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        reason = children.wait_for(process, children.STILL)
        output.seek(0)
        printed = output.read().decode(errors="replace").strip().splitlines()
    result = folder / "result.json"
    if not result.exists():
        raise ValueError(f"train: a fresh interpreter did not run it: {reason or (printed or ['it said nothing'])[-1]}")
    payload: Mapping[str, Any] = json.loads(result.read_text())
    return payload


def modules_behind(function: Callable[..., Any]) -> Iterator[ModuleType]:
    """Yield the user's modules that a function comes from or refers to, and those that they import."""
    code = inspect.unwrap(function)
    waiting = [sys.modules.get(getattr(code, "__module__", "") or "")]
    if isinstance(code, FunctionType):
        waiting += [v for v in closed_over(code).values() if isinstance(v, ModuleType)]
        waiting += [
            sys.modules.get(getattr(v, "__module__", "") or "") for v in closed_over(code).values() if callable(v)
        ]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        file = getattr(module, "__file__", None)
        if module is None or not file or module.__name__ in seen or not is_users(file):
            continue
        seen.add(module.__name__)
        yield module
        waiting += [v for v in vars(module).values() if isinstance(v, ModuleType)]
        waiting += [sys.modules.get(getattr(v, "__module__", "") or "") for v in vars(module).values() if callable(v)]


def _packed(function: Any, depth: int) -> dict[str, Any]:
    """Return a function as JSON can hold it.

    Raises:
        _Not: it cannot be.
    """
    if not isinstance(function, FunctionType):
        raise _Not(f"it is no plain function but {type(function).__name__}")
    if depth > DEEP:
        raise _Not("it closes over functions within functions")
    if function.__module__ != "__main__" and "<" not in function.__qualname__:
        return {"kind": "named", **_module(sys.modules[function.__module__]), "name": function.__qualname__}
    if function.__defaults__ or function.__kwdefaults__:
        raise _Not(f"'{function.__name__}' has defaults that exist only here")
    source = function.__code__.co_filename
    if not os.path.exists(source):
        raise _Not(f"the source of '{function.__name__}' is not in a file")
    names = {name: _value(name, value, depth) for name, value in closed_over(function).items()}
    line, column = _position(function.__code__)
    return {"kind": "source", "file": source, "line": line, "column": column, "name": function.__name__, "names": names}


def _value(name: str, value: Any, depth: int) -> dict[str, Any]:
    if isinstance(value, ModuleType):
        return {"kind": "module", **_module(value)}
    if isinstance(value, FunctionType):
        return _packed(value, depth + 1)
    if isinstance(value, type) and value.__module__ != "__main__" and "<" not in value.__qualname__:
        return {"kind": "named", **_module(sys.modules[value.__module__]), "name": value.__qualname__}
    try:
        if json.loads(json.dumps(value)) == value:
            return {"kind": "value", "value": value}
    except (TypeError, ValueError):
        pass
    raise _Not(f"it uses '{name}', {type(value).__name__}, which exists only here")


def _module(module: ModuleType) -> dict[str, Any]:
    file = getattr(module, "__file__", None)
    return {"module": module.__name__, "file": os.path.abspath(file) if file and is_users(file) else None}


def _position(code: CodeType) -> tuple[int, int]:
    """Return where the first of a function's own instructions stands: two lambdas may share a line."""
    places = [(line, column) for line, _, column, _ in code.co_positions() if line is not None and column is not None]
    body = [place for place in places if place >= (code.co_firstlineno, 0) and place[1] > 0] or places
    return min(body) if code.co_name == "<lambda>" else (code.co_firstlineno, 0)


def _unpacked(packed: Mapping[str, Any]) -> Any:
    kind = packed["kind"]
    if kind == "value":
        return packed["value"]
    if kind == "source":
        return _compiled(packed)
    module = _imported(packed["module"], packed["file"])
    if kind == "module":
        return module
    found: Any = module
    for part in packed["name"].split("."):
        found = getattr(found, part)
    return found


def _imported(name: str, file: str | None) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    if file is None or "." in name:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module {name!r} in {file!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _compiled(packed: Mapping[str, Any]) -> Any:
    tree = ast.parse(Path(packed["file"]).read_text())
    namespace = {name: _unpacked(value) for name, value in packed["names"].items()}
    place = (packed["line"], packed["column"])
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda) and packed["name"] == "<lambda>":
            body = node.body
            if (body.lineno, body.col_offset) <= place < (body.end_lineno or 0, body.end_col_offset or 0):
                return eval(compile(ast.Expression(node), packed["file"], "eval"), namespace)
        elif isinstance(node, ast.FunctionDef) and node.name == packed["name"]:
            if packed["line"] in {node.lineno, *(d.lineno for d in node.decorator_list)}:
                node.decorator_list = []
                exec(compile(ast.Module([node], []), packed["file"], "exec"), namespace)
                return namespace[node.name]
    raise LookupError(f"no function {packed['name']!r} at line {packed['line']} of {packed['file']}")


def _threads() -> int | None:
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def _main(folder: Path) -> None:
    """Be the fresh interpreter."""
    from pytest_mltd.probes.repeating import run_child

    job = json.loads((folder / "job.json").read_text())
    sys.path[:] = job["path"]
    if job["threads"] is not None:
        import torch

        torch.set_num_threads(job["threads"])
    payload = run_child(_unpacked(job["function"]), Condition(**job["condition"]), folder, job["before_ns"])
    part = folder / "result.part"
    part.write_text(json.dumps(payload, default=str))
    part.rename(folder / "result.json")
    children.stop_workers()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
