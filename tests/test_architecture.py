"""Who may know whom, read from the imports. Function-local and typing-only imports count: knowing is knowing."""

import ast
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pytest_mltd"
NAME = "pytest_mltd"

# room -> the rooms it may import (itself always). A longer name wins: `checks.runs` is not `checks.tables`.
KNOWS = {
    "core": set(),
    "checks": set(),
    "checks.runs": {"core"},
    "checks.tables": {"core"},
    "recording": {"core"},
    "intake": {"core"},
    "ledger": {"core"},
    "report": {"core"},
    "probes": {"core", "checks", "checks.runs", "checks.tables", "recording"},
    "faults": {"core", "recording"},
    "trials": {"core"},
    "strategies": set(),
    "diagnosis": {"core", "checks", "checks.runs", "checks.tables", "probes"},
    "plugin": {"*"},
    "cli": {"*"},
    "__main__": {"cli"},
    "__init__": {"*"},  # the door leads everywhere; nobody goes through it from inside
}
NOT_FROM_INSIDE = {"__init__": "the public door", "cli": "ring 3", "plugin": "ring 3", "__main__": "the command"}
MAY_STILL = {("__main__", "cli"), ("cli", "plugin")}

# outside package -> the rooms that own it
OWNED = {
    "torch": {"recording", "probes", "faults"},
    "safetensors": {"recording", "probes", "faults"},
    "xxhash": {"core", "recording"},
    "pytest": {"plugin"},
    "_pytest": {"plugin"},
    "pluggy": {"plugin"},
    "xdist": {"plugin"},
    "hypothesis": {"plugin", "strategies"},
    "narwhals": {"checks.tables", "strategies"},
    "pandas": {"checks.tables"},
    "polars": {"checks.tables"},
    "pyarrow": {"checks.tables"},
    "duckdb": {"checks.tables"},
    "pyspark": {"checks.tables"},
    "great_expectations": {"checks.tables"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "argparse": {"cli"},
    "numpy": {"core", "checks.runs", "checks.tables", "recording", "probes", "faults", "intake", "report"},
}
# Never: reading these runs code from a file, or talks to another machine.
BANNED = {
    "pickle": "unpickling runs code from a file",
    "shelve": "unpickling runs code from a file",
    "marshal": "reads code from a file",
    "dill": "unpickling runs code from a file",
    "cloudpickle": "unpickling runs code from a file",
    "joblib": "unpickling runs code from a file",
    "urllib": "no network",
    "http": "no network",
    "ftplib": "no network",
    "smtplib": "no network",
    "requests": "no network",
}
# These take a module's name as text; a constant one is an import like any other.
BY_NAME = {"import_module", "__import__", "discover", "modules_of"}
VAGUE = {"utils", "helpers", "manager", "common", "misc"}


def offences(package: Path) -> list[str]:
    """Return one line for each import or file name that the house does not allow."""
    found = []
    for file in sorted(package.rglob("*.py")):
        place = file.relative_to(package)
        if place.stem in VAGUE:
            found.append(f"{place}: '{place.stem}' says nothing; name the file after what it holds")
        room = _room(".".join(place.with_suffix("").parts).removesuffix(".__init__"))
        for line, target in _imports(file, package):
            reason = _objection(room, target)
            if reason:
                found.append(f"{place}:{line} imports {target}: {reason}")
    return found


def _objection(room: str, target: str) -> str:
    top = target.partition(".")[0]
    if top != NAME:
        return _objection_outside(room, top)
    known = _room(target.removeprefix(NAME).lstrip(".") or "__init__")
    if known == room or (room, known) in MAY_STILL:
        return ""
    if known in NOT_FROM_INSIDE and room not in ("__init__",):
        return f"{NOT_FROM_INSIDE[known]} is not for '{room}'"
    if known in KNOWS[room] or "*" in KNOWS[room]:
        return ""
    return f"'{room}' may know {', '.join(sorted(KNOWS[room])) or 'nobody'}, not '{known}'"


def _objection_outside(room: str, top: str) -> str:
    if top in BANNED:
        return BANNED[top]
    if top in OWNED:
        return "" if room in OWNED[top] else f"it belongs to {', '.join(sorted(OWNED[top]))}, not to '{room}'"
    return "" if top in sys.stdlib_module_names else "it is no dependency of this package"


def _room(module: str) -> str:
    """Return the room of a module named from inside the package: 'checks.runs.gradients' is in 'checks.runs'."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in KNOWS:
            return name
    return parts[0]


def _imports(file: Path, package: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, file, package)
            found += [(node.lineno, _deepest(base, alias.name, package)) for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in BY_NAME and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.append((node.lineno, first.value))
    # The version is a fact about the package, not a way through the door.
    return [(line, target) for line, target in found if target != f"{NAME}.__version__"]


def _absolute(node: ast.ImportFrom, file: Path, package: Path) -> str:
    if not node.level:
        return node.module or ""
    parents = (NAME, *file.relative_to(package).parts[:-1])
    return ".".join((*parents[: len(parents) - node.level + 1], *(node.module or "").split("."))).rstrip(".")


def _deepest(base: str, name: str, package: Path) -> str:
    """Return 'pytest_mltd.core.findings' for ``from pytest_mltd.core import findings``, and the module for a plain name."""
    if base.partition(".")[0] != NAME:
        return base
    inside = package.joinpath(*base.split(".")[1:], name)
    is_module = inside.with_suffix(".py").exists() or inside.is_dir()
    return f"{base}.{name}" if is_module or name == "__version__" else base


def _called(node: ast.Call) -> str:
    function = node.func
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def test_every_import_points_inward():
    """No room knows what it should not."""
    found = offences(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_every_room_is_in_the_picture():
    """A new folder or top-level file has a place in the rings, so that no import of it goes unjudged."""
    rooms = {p.stem for p in PACKAGE.iterdir() if (p.suffix == ".py" or (p / "__init__.py").exists())}
    assert rooms - {name.partition(".")[0] for name in KNOWS} == set()


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        ("core/x.py", "import torch", "it belongs to faults, probes, recording, not to 'core'"),
        ("core/x.py", "def f():\n    import pandas", "it belongs to checks.tables, not to 'core'"),
        (
            "core/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pytest_mltd.report import page",
            "'core' may know nobody, not 'report'",
        ),
        ("checks/runs/x.py", "from pytest_mltd.checks.tables import overlap", "not 'checks.tables'"),
        ("checks/runs/x.py", "from ..tables import overlap", "not 'checks.tables'"),
        ("checks/tables/x.py", "import pytest_mltd.checks.runs.gradients", "not 'checks.runs'"),
        ("checks/runs/x.py", "from pytest_mltd import recording", "not 'recording'"),
        ("recording/x.py", "import pytest", "it belongs to plugin, not to 'recording'"),
        ("recording/x.py", "from pytest_mltd.checks.runs.gradients import f", "not 'checks.runs'"),
        ("ledger/x.py", "from importlib import import_module\nimport_module('pytest_mltd.report')", "not 'report'"),
        ("trials/x.py", "discover('pytest_mltd.checks.runs')", "'trials' may know core, not 'checks.runs'"),
        ("probes/x.py", "from pytest_mltd.plugin import options", "ring 3 is not for 'probes'"),
        ("probes/x.py", "import pytest_mltd as mltd", "the public door is not for 'probes'"),
        ("plugin/x.py", "from pytest_mltd.cli import main", "ring 3 is not for 'plugin'"),
        ("plugin/x.py", "import torch", "not to 'plugin'"),
        ("plugin/x.py", "import argparse", "it belongs to cli"),
        ("diagnosis.py", "from pytest_mltd.recording import seeds", "not 'recording'"),
        ("report/x.py", "import pickle", "unpickling runs code"),
        ("report/x.py", "import urllib.request", "no network"),
        ("report/x.py", "import yaml", "it is no dependency"),
        ("intake/utils.py", "", "'utils' says nothing"),
    ],
)
def test_the_guard_sees_each_kind_of_offence(tmp_path, file, code, complaint):
    """A planted violation is found, and named with its file."""
    package = tmp_path / NAME
    for folder in ("core", "checks/runs", "checks/tables", "recording", "report", "plugin"):
        (package / folder).mkdir(parents=True)
    for module in ("report/page", "checks/tables/overlap", "plugin/options"):
        (package / f"{module}.py").touch()
    (package / file).parent.mkdir(exist_ok=True)
    (package / file).write_text(code)
    found = offences(package)
    assert len(found) == 1
    assert found[0].startswith(file)
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("core/x.py", "import json\nimport numpy as np\nfrom pytest_mltd.core.findings import Finding"),
        ("report/x.py", "from pytest_mltd import __version__"),
        ("diagnosis.py", "from pytest_mltd.probes import determinism"),
        ("cli.py", "import argparse\nfrom pytest_mltd.report import page"),
    ],
)
def test_the_guard_lets_good_neighbours_pass(tmp_path, file, code):
    """What the picture allows is not complained about."""
    (tmp_path / NAME / "core").mkdir(parents=True)
    (tmp_path / NAME / file).parent.mkdir(exist_ok=True)
    (tmp_path / NAME / file).write_text(code)
    assert offences(tmp_path / NAME) == []


def test_the_outside_packages_are_declared_dependencies():
    """What a room may import is named in pyproject.toml, or comes with Python or pytest."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = " ".join(
        [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    )
    with_pytest = {"_pytest", "pluggy", "xdist"}
    for package in OWNED.keys() - with_pytest - set(sys.stdlib_module_names):
        assert package.replace("_", "-") in declared, package


HEAVY = ("torch", "numpy", "pandas", "polars", "scipy", "narwhals", "duckdb", "pyarrow", "matplotlib", "sklearn")


def _loaded(program: str, tmp_path: Path) -> set[str]:
    """Run a program in a fresh interpreter and return which heavy packages it had loaded at its end."""
    script = tmp_path / "program.py"
    tail = f"import sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    script.write_text(f"{textwrap.dedent(program)}\n{tail}\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other plugins may load what they like
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())


ONE_TEST = """
    import pathlib, pytest
    pathlib.Path("test_one.py").write_text("def test_one(): {body}")
    assert pytest.main(["-p", "pytest_mltd.plugin", "-q", "-p", "no:cacheprovider", {options!r}]) == 0
"""


@pytest.mark.parametrize(
    "program",
    [
        "import pytest_mltd; dir(pytest_mltd)",
        "import pytest_mltd; pytest_mltd.Finding",
        "import pytest_mltd.plugin",
        "import pytest_mltd.cli",
        ONE_TEST.format(body="pass", options="--collect-only"),
        ONE_TEST.format(body="pass", options="-v"),
    ],
    ids=["door", "a name of the door", "plugin", "shell", "collect", "a test that does not use it"],
)
def test_loading_costs_nothing_until_used(tmp_path, program):
    """No heavy package is imported by loading the plugin, the door or the shell, nor by a test that uses none of it."""
    assert _loaded(program, tmp_path) == set()


def test_the_proof_of_lightness_can_fail(tmp_path):
    """A test that does use it loads something, and the same measurement sees that."""
    body = "import numpy"
    assert _loaded(ONE_TEST.format(body=body, options="-v"), tmp_path) == {"numpy"}


@pytest.mark.parametrize("package", ["pytest_mltd.checks", "pytest_mltd.probes"])
def test_to_know_which_checks_there_are_loads_no_engine(package):
    """A project's limits are held against all of them when pytest starts, also where nothing of torch is tested."""
    lines = ["import sys", "from pytest_mltd.core.asking import discover"]
    code = "\n".join([*lines, f"assert len(discover({package!r})) > 9", "print(*sys.modules)"])
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "pandas", "polars", "narwhals", "scipy"} & set(loaded)
