"""What the base install leaves out, and the one sentence a person reads when it is needed.

::

    need("torch", "recording a run")
    import torch
"""

from __future__ import annotations

import importlib.util
import sys
from types import MappingProxyType
from typing import Any

EXTRA_OF = MappingProxyType(
    {
        "torch": "torch",
        "safetensors": "torch",
        "pandas": "data",
        "polars": "data",
        "pyarrow": "data",
        "duckdb": "data",
        "great_expectations": "gx",
        "jinja2": "report",
        "matplotlib": "report",
        "xxhash": "exact",
        "pyspark": "spark",
    }
)


class MissingExtra(ModuleNotFoundError):
    """A package outside the base install is needed here. ``name`` is the package; the text has the line to install it."""

    __module__ = "builtins"  # the sentence is the message; pytest would print the module's path before it

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.msg, self.name)


def need(package: str, purpose: str = "this") -> None:
    """Return if a package of one of the extras can be imported; it is not imported yet.

    Args:
        package: the name that is imported, as in ``need("torch")``.
        purpose: what it is needed for, as it reads before "needs": ``"recording a run"``.

    Raises:
        MissingExtra: it is not installed.
        KeyError: the package belongs to no extra (a defect of the caller).
    """
    extra = EXTRA_OF[package]
    if not _importable(package):
        raise MissingExtra(_sentence(package, extra, purpose), name=package)


def missing(error: ModuleNotFoundError, purpose: str = "this") -> ModuleNotFoundError:
    """Return the error with the install line where its package belongs to an extra, else the error itself."""
    package = (error.name or "").partition(".")[0]
    if isinstance(error, MissingExtra) or package not in EXTRA_OF or _importable(package):
        return error
    return MissingExtra(_sentence(package, EXTRA_OF[package], purpose), name=package)


def _sentence(package: str, extra: str, purpose: str) -> str:
    kept = " (keeps an installed torch of 2.6 or later)" if package == "torch" else ""
    return f"{purpose} needs {package}, which is not installed: pip install 'pytest-mltd[{extra}]'{kept}"


def _rebuild(message: str, package: str) -> MissingExtra:
    return MissingExtra(message, name=package)


def _importable(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None
