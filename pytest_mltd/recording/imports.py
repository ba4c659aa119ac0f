"""Torch and numpy, if they are there; and a deed for the moment at which the program imports them."""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def loaded(name: str) -> Any:
    """Return a module that is imported and through with it, else None: torch imports itself in pieces."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module


def now_or_when_imported(
    name: str, deed: Callable[[Any, contextlib.ExitStack], None], undo: contextlib.ExitStack
) -> None:
    """Do it to the module now, or as soon as it is imported; closing ``undo`` takes it back, or calls it off."""
    module = loaded(name)
    if module is not None:
        deed(module, undo)
        return
    later = undo.enter_context(contextlib.ExitStack())
    finder = _WhenImported(name, lambda imported: deed(imported, later))
    sys.meta_path.insert(0, finder)
    undo.callback(finder.leave)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Runs a deed once, right after a module was imported for the first time."""

    def __init__(self, name: str, deed: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._deed = deed
        self._asking = False

    def leave(self) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self._asking:
            return None
        self._asking = True  # another that waits for the same module asks this one in turn
        try:
            for finder in tuple(sys.meta_path):
                find = getattr(finder, "find_spec", None)  # old finders may lack it
                spec: ModuleSpec | None = None if finder is self or find is None else find(fullname, path, target)
                if spec is not None:
                    self._follow(spec)
                    return spec
        finally:
            self._asking = False
        return None

    def _follow(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            loader.exec_module = execute
            execute(module)
            self.leave()  # only now: a program may look for a spec without importing, or fail halfway and try again
            self._deed(module)

        loader.exec_module = exec_module
