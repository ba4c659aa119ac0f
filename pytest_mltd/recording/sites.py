"""Which line of the user's code is at work, and what that line calls a thing.

Frames are read only for their file, line and instruction, never for their local variables: reading those keeps tensors alive
and changes a dictionary that the program may have got from ``locals()``.
"""

from __future__ import annotations

import ast
import itertools
import linecache
import os
import sysconfig
from types import FrameType
from typing import Final

_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STDLIB: Final = sysconfig.get_paths()["stdlib"] + os.sep
_OWN: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SKIP, _LIBRARY, _USER = 0, 1, 2

_kinds: dict[str, int] = {}  # file name -> one of the three


def user_place(frame: FrameType | None) -> tuple[str, int] | None:
    """Return (file, line) of the nearest frame that is the user's own code; else of the nearest library that is not torch."""
    library = None
    while frame is not None:
        name = frame.f_code.co_filename
        kind = _kinds.get(name)
        if kind is None:
            kind = _kinds[name] = _kind_of(name)
        if kind == _USER:
            return name, frame.f_lineno
        if kind == _LIBRARY and library is None:
            library = frame
        frame = frame.f_back
    return None if library is None else (library.f_code.co_filename, library.f_lineno)


def shown(place: tuple[str, int] | None) -> str:
    """Return the place as a person reads it: relative to the folder that the program began in, or the file with its folder."""
    if place is None:
        return ""
    name, line = place
    if os.path.isabs(name):
        folder = next((f for f in (_START, _here()) if f.strip(os.sep) and name.startswith(f + os.sep)), "")
        name = name[len(folder) + 1 :] if folder else os.sep.join(name.split(os.sep)[-2:])
    return f"{name}:{line}"


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


_START: Final = _here()  # a program may change its folder later


class Sites:
    """The places seen so far, each with its index; new ones are handed to ``on_new`` as text."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._index: dict[tuple[str, int], int] = {}

    def index(self, frame: FrameType | None) -> int:
        """Return the index of the user's line above this frame, -1 when there is none."""
        while frame is not None:  # the usual case: some frames of torch's own, then a line that is known
            name = frame.f_code.co_filename
            kind = _kinds.get(name)
            if kind == _USER:
                known = self._index.get((name, frame.f_lineno))
                if known is not None:
                    return known
            if kind != _SKIP:
                break
            frame = frame.f_back
        place = user_place(frame)
        if place is None:
            return -1
        found = self._index.get(place)
        if found is None:
            found = self._index[place] = len(self._texts)
            self._texts.append(shown(place))
        return found

    def text(self, index: int) -> str:
        """Return ``file:line`` of an index, empty for -1."""
        return self._texts[index] if index >= 0 else ""


def caller_outside(frame: FrameType | None) -> FrameType | None:
    """Return the nearest frame outside torch, the standard library and this package."""
    while (
        frame is not None and _kinds.setdefault(frame.f_code.co_filename, _kind_of(frame.f_code.co_filename)) == _SKIP
    ):
        frame = frame.f_back
    return frame


def called_as(frame: FrameType | None) -> str:
    """Return what the running call's source calls its function: ``net`` in ``F.mse_loss(net(x), y)``; "" when unknown."""
    call = _call_at(frame)
    return ast.unparse(call.func) if call is not None else ""


def called_with(frame: FrameType | None) -> list[str]:
    """Return the names in the running call's first argument, when it is a list of them: ``[w, b]`` in ``SGD([w, b], 0.1)``."""
    call = _call_at(frame)
    first = call.args[0] if call is not None and call.args else None
    if not isinstance(first, (ast.List, ast.Tuple)):
        return []
    named = isinstance(first, (ast.List, ast.Tuple)) and all(
        isinstance(e, (ast.Name, ast.Attribute)) for e in first.elts
    )
    return [ast.unparse(e) for e in first.elts] if named else []


def assigned_to(frame: FrameType | None) -> str:
    """Return the name that the running call's result is given to: ``opt`` in ``opt = SGD(…)``; "" when unknown."""
    text = _text_before_call(frame).strip()
    if not text.endswith("=") or text.endswith(("==", "!=", "<=", ">=")):
        return ""
    target = text[:-1].partition(":")[0].strip()
    return target if all(part.isidentifier() for part in target.split(".")) else ""


def plain(expression: str) -> str:
    """Return the last name of an expression (``self.model`` → ``model``), or "" when it is not one a person would use."""
    name = expression.rpartition(".")[2]
    return "" if name in {"self", "cls", "super()", "forward"} or not name or "(" in name else name


def _kind_of(name: str) -> int:
    if name.startswith((_OWN, "<frozen")):
        return _SKIP
    for mark in _INSTALLED:
        if mark in name:
            package = name.rpartition(mark)[2].split(os.sep)[0]
            return _SKIP if package in {"torch", "_pytest", "pluggy", "numpy"} else _LIBRARY
    return _SKIP if name.startswith(_STDLIB) else _USER


def _call_at(frame: FrameType | None) -> ast.Call | None:
    span = _span(frame)
    if frame is None or span is None:
        return None
    line, end_line, column, end_column = span
    rows = [r.encode() for r in _lines(frame)[line - 1 : end_line]]
    if len(rows) != end_line - line + 1:
        return None
    rows[-1] = rows[-1][:end_column]  # the last row first: it may be the first row too
    rows[0] = rows[0][column:]
    try:
        tree = ast.parse("(" + b"".join(rows).decode() + ")", mode="eval").body
    except (SyntaxError, ValueError):
        return None
    return tree if isinstance(tree, ast.Call) else None


def _text_before_call(frame: FrameType | None) -> str:
    span = _span(frame)
    if frame is None or span is None:
        return ""
    rows = _lines(frame)[span[0] - 1 : span[0]]
    return rows[0].encode()[: span[2]].decode("utf-8", "replace") if rows else ""


def _span(frame: FrameType | None) -> tuple[int, int, int, int] | None:
    if frame is None or frame.f_lasti < 0:
        return None
    found = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if found is None or any(v is None for v in found):
        return None
    line, end_line, column, end_column = (int(v or 0) for v in found)
    return line, end_line, column, end_column


def _lines(frame: FrameType) -> list[str]:
    return linecache.getlines(frame.f_code.co_filename, frame.f_globals)
