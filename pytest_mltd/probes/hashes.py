"""Whether a program's result may follow Python's hash seed: read from its source, which costs nothing."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from pytest_mltd.probes.witness import is_users

MOST = 2000  # functions that are looked at
ORDERED = {"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "reversed", "next", "fromkeys", "join"}
ORDERLESS = {
    "sorted",
    "len",
    "min",
    "max",
    "any",
    "all",
    "set",
    "frozenset",
    "sum",
}  # no order of what they take comes out
RETURNING = {"union", "intersection", "difference", "symmetric_difference", "copy"}


def depends_on_hashes(function: Callable[..., Any]) -> bool:
    """Whether the user's code that a function leads to lets the order of a set out, or calls ``hash``.

    A set that is only asked for membership, sorted or counted is left alone. Code that cannot be read is taken not to.
    """
    return any(_lets_order_out(*known) for reached in reachable(function) if (known := _read(reached)) is not None)


def reachable(function: Callable[..., Any]) -> Iterator[FunctionType]:
    """Yield the functions of the user's that one refers to by name, itself first, and those they refer to in turn."""
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        found = inspect.unwrap(waiting.pop(0)) if callable(waiting[0]) else waiting.pop(0)
        if id(found) in seen or len(seen) > MOST:
            continue
        seen.add(id(found))
        if isinstance(found, MethodType):
            waiting += [found.__func__, type(found.__self__)]
        elif isinstance(found, FunctionType) and is_users(found.__code__.co_filename):
            yield found
            waiting += list(closed_over(found).values())
            waiting += _attributes(found)
        elif isinstance(found, type) and is_users(_file_of(found)):
            waiting += [v for v in vars(found).values() if isinstance(v, FunctionType)] + list(found.__bases__)
        elif not isinstance(found, (type, ModuleType, FunctionType)) and is_users(_file_of(type(found))):
            waiting.append(type(found))


def closed_over(function: FunctionType) -> dict[str, Any]:
    """Return what a function's own code refers to by name: free variables and globals that exist."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in _names_in(function.__code__):
        if name not in found and name in function.__globals__:
            found[name] = function.__globals__[name]
    return found


def _attributes(function: FunctionType) -> list[Any]:
    """Return what the function may mean by ``module.name``, for the user's own modules."""
    modules = [
        m
        for m in closed_over(function).values()
        if isinstance(m, ModuleType) and is_users(getattr(m, "__file__", None) or "<")
    ]
    return [vars(m)[name] for m in modules for name in _names_in(function.__code__) if name in vars(m)]


def _names_in(code: CodeType) -> set[str]:
    inner = [_names_in(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def _file_of(kind: type) -> str:
    import sys

    return getattr(sys.modules.get(kind.__module__), "__file__", None) or "<built in>"


def _read(function: FunctionType) -> tuple[ast.AST, set[str]] | None:
    """Return a function's source, and the names in it that are known to be sets of something other than numbers."""
    sets = {n for n, v in closed_over(function).items() if isinstance(v, (set, frozenset)) and _hashes_matter(v)}
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function))), sets
    except (OSError, TypeError, SyntaxError):  # a lambda in the middle of a statement
        return None


def _hashes_matter(values: Any) -> bool:
    return not all(isinstance(v, (int, float)) for v in values)


def _lets_order_out(tree: ast.AST, known: set[str]) -> bool:
    names = known | {name for node in ast.walk(tree) for name in _set_names(node)}
    quiet = {id(argument) for node in ast.walk(tree) for argument in _orderless_arguments(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _called(node)
            if called == "hash" and isinstance(node.func, ast.Name):
                return True
            if called in ORDERED and any(_is_set(a, names) for a in node.args):
                if id(node) not in quiet:
                    return True
        elif isinstance(node, (ast.Starred, ast.For)):
            if _is_set(node.value if isinstance(node, ast.Starred) else node.iter, names):
                return True
        elif isinstance(node, (ast.ListComp, ast.DictComp, ast.GeneratorExp)) and id(node) not in quiet:
            if any(_is_set(g.iter, names) for g in node.generators):
                return True
    return False


def _set_names(node: ast.AST) -> Iterator[str]:
    """Yield the variables that a statement makes a set."""
    if isinstance(node, ast.Assign) and _is_set(node.value, set()):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and node.value is not None and _is_set(node.value, set()):
        if isinstance(node.target, ast.Name):
            yield node.target.id


def _orderless_arguments(node: ast.AST) -> list[ast.expr]:
    return node.args if isinstance(node, ast.Call) and _called(node) in ORDERLESS else []


def _is_set(node: ast.expr, names: set[str]) -> bool:
    if isinstance(node, ast.Set):  # the order of small whole numbers does not depend on the seed
        return not all(isinstance(e, ast.Constant) and isinstance(e.value, int) for e in node.elts)
    if isinstance(node, ast.SetComp):
        return True
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.BinOp):
        return _is_set(node.left, names) or _is_set(node.right, names)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            return node.func.attr in RETURNING and _is_set(node.func.value, names)
        return _called(node) in ("set", "frozenset")
    return False


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
