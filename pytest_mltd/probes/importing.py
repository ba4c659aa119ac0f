"""What a module draws while it is imported: two runs that share the import share it too, so it is no difference between them.

Read from the module's text, so that nothing of the program is touched. What a function draws that the module calls at import,
and a seed that comes from another module, are not seen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_mltd.probes.witness import is_users

MOST_BYTES = 1_000_000  # of a module; a longer one is data
WORDS = ("default_rng", "random", "seed")  # a module without any of them need not be parsed
GENERATORS = {
    "default_rng": "numpy.random.default_rng",
    "RandomState": "numpy.random.RandomState",
    "Random": "random.Random",
}
SEEDING = frozenset(
    "seed manual_seed manual_seed_all seed_everything set_seed PRNGKey default_rng RandomState Random".split()
)
# Names of calls that give another thing each time, with the module that they may be called on.
CHANGING = {
    "time": "time", "time_ns": "time", "perf_counter": "time", "perf_counter_ns": "time", "monotonic": "time",
    "monotonic_ns": "time", "getpid": "os", "urandom": "os", "uuid1": "uuid", "uuid4": "uuid", "randbits": "secrets",
    "randbelow": "secrets", "token_bytes": "secrets", "token_hex": "secrets", "now": "datetime", "utcnow": "datetime",
}  # fmt: skip


def drawn_at_import(files: Iterable[str | None], root: Path) -> tuple[str, ...]:
    """Return, one for each place, what modules of the user's below ``root`` draw from the clock or the system at import."""
    said: list[str] = []
    for file in dict.fromkeys(f for f in files if f and f.endswith(".py") and is_users(f)):
        path = Path(file)
        if path.is_relative_to(root):
            said += [f"{path.relative_to(root)}:{line}: {what}" for line, what in _in_text(_text_of(path))]
    return tuple(said)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace") if path.stat().st_size <= MOST_BYTES else ""
    except OSError:
        return ""


def _in_text(text: str) -> list[tuple[int, str]]:
    if not any(word in text.lower() for word in WORDS):
        return []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    changing: dict[str, str] = {}  # a module's own name: the call that its value came from
    found: dict[tuple[int, str], None] = {}
    at_import = set()
    for node in _at_import(tree):
        at_import.add(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            source = "" if _generator(node.value) else _source(node.value, changing)
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            changing |= {target.id: source for target in targets if isinstance(target, ast.Name) and source}
        elif isinstance(node, ast.Call) and (generator := _generator(node)):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            source = next(filter(None, (_source(value, changing) for value in given)), "")
            if source:
                found[node.lineno, f"{generator} is seeded from {source}"] = None
            elif all(isinstance(value, ast.Constant) and value.value is None for value in given):
                found[node.lineno, f"{generator} is made without a seed"] = None
    for node in ast.walk(tree):
        for name in _seeds(node):
            if name in changing and node not in at_import:
                found[node.lineno, f"the seed {name!r} is taken from {changing[name]}"] = None  # type: ignore[attr-defined]
    return sorted(found)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is executed when the module is imported, a statement before what is in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "__name__" in {n.id for n in ast.walk(child.test) if isinstance(n, ast.Name)}:
            continue
        yield child
        yield from _at_import(child)


def _generator(node: ast.AST) -> str:
    """Return which generator of random numbers a call makes, or nothing."""
    if not isinstance(node, ast.Call):
        return ""
    holder, name = _called(node)
    return GENERATORS.get(name, "") if holder in ("", "random", "rd") else ""


def _source(node: ast.AST, changing: dict[str, str]) -> str:
    """Return what in an expression is another thing each time, or nothing."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            holder, name = _called(inner)
            if CHANGING.get(name) == holder or (not holder and name in CHANGING and name != "now"):
                return f"{holder}.{name}" if holder else name
        elif isinstance(inner, ast.Name) and inner.id in changing:
            return changing[inner.id]
    return ""


def _seeds(node: ast.AST) -> list[str]:
    """Return the names that a node takes for a seed."""
    values: list[ast.expr | None] = []
    if isinstance(node, ast.Call):
        values += [k.value for k in node.keywords if k.arg and ("seed" in k.arg or k.arg == "random_state")]
        values += node.args if _called(node)[1] in SEEDING else []
    return [value.id for value in values if isinstance(value, ast.Name)]


def _called(call: ast.Call) -> tuple[str, str]:
    """Return the last name before the dot, "" where there is none, and the name that is called."""
    if isinstance(call.func, ast.Name):
        return "", call.func.id
    if isinstance(call.func, ast.Attribute):
        holder = call.func.value
        return (holder.attr if isinstance(holder, ast.Attribute) else getattr(holder, "id", "?")), call.func.attr
    return "?", "?"
