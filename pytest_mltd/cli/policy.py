"""What the project has decided for all checks (``mltd_allow``, ``mltd_limits``), read from where pytest would."""

from __future__ import annotations

import configparser
import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_mltd.cli.output import Misuse

# In each folder upwards, the first that has a section for pytest; as pytest's own documentation orders them.
_FILES = (
    ("pytest.toml", ("pytest",)),
    (".pytest.toml", ("pytest",)),
    ("pytest.ini", ("pytest",)),
    (".pytest.ini", ("pytest",)),
    ("pyproject.toml", ("tool.pytest", "tool.pytest.ini_options")),
    ("tox.ini", ("pytest",)),
    ("setup.cfg", ("tool:pytest",)),
)
_KEYS = ("mltd_allow", "mltd_limits")


@contextlib.contextmanager
def project_policy(folder: Path) -> Iterator[None]:
    """Hold every check in the block to what the project of a folder has decided, as its tests are held to it.

    Raises:
        Misuse: an entry is wrong.
    """
    stated = _stated(folder)
    if not any(key in stated for key in _KEYS):
        yield
        return
    import pytest_mltd.plugin.options as options
    from pytest_mltd.core.asking import policy

    try:
        decided = options.policy_of(options.parse_stated(stated))
    except Exception as error:
        if type(error).__name__ != "UsageError":  # pytest's; only the plugin may import it
            raise
        raise Misuse(str(error)) from None
    with policy(decided):
        yield


def _stated(folder: Path) -> Mapping[str, Any]:
    for place in (folder, *folder.parents):
        for name, sections in _FILES:
            found = _sections(place / name)
            for section in sections:
                values = {k: v for k, v in found.get(section, {}).items() if not isinstance(v, dict)}
                if values or (section in found and name != "pyproject.toml"):
                    return values
    return {}


def _sections(file: Path) -> dict[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".toml":
            return _flat(tomllib.loads(text))
        parser = configparser.RawConfigParser()
        parser.read_string(text)
    except (OSError, ValueError, configparser.Error):  # pytest will say what is wrong with it
        return {}
    return {name: dict(parser[name]) for name in parser.sections()}


def _flat(tables: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the tables of a TOML file by their dotted names."""
    flat: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            flat[prefix + name] = table
            flat |= _flat(table, f"{prefix}{name}.")
    return flat
