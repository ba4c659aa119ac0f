"""The public door: everything is there, typed, found without a list to keep, and nothing is loaded before it is used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pytest_mltd as mltd

PACKAGE = Path(mltd.__file__).parent
# The promises of the first days; a name may join, none may leave.
PROMISED = """
CheckFailed Diagnosis Finding MissingExtra NotAsked Trace
record run seed_everything tiny diagnose assert_healthy
check_nonfinite check_explosion check_vanishing check_loss_divergence check_loss_spike check_plateau
check_frozen_parameters check_stale_gradients check_misordered_calls check_update_scale check_divergence
assert_no_nonfinite assert_no_explosion assert_no_vanishing assert_no_loss_divergence assert_no_loss_spike assert_no_plateau
assert_no_frozen_parameters assert_no_stale_gradients assert_no_misordered_calls assert_no_update_scale assert_no_divergence
check_leakage assert_no_leakage check_row_overlap check_group_overlap check_time_overlap check_key_overlap check_label_leak
assert_no_row_overlap assert_no_group_overlap assert_no_time_overlap assert_no_key_overlap assert_no_label_leak
check_reproducible assert_reproducible assert_no_regression
calls divergence gradients losses metrics updates leakage overlap splits determinism
""".split()


def python(code, *, path=None, cwd=None):
    """Run code in a fresh interpreter and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_name_is_there(name):
    """It resolves, is the same object each time, and `dir` lists it."""
    assert getattr(mltd, name) is getattr(mltd, name)
    assert name in dir(mltd)


def test_everything_that_is_listed_resolves():
    """Whatever `dir` shows can be used."""
    for name in dir(mltd):
        assert getattr(mltd, name) is not None


def test_families_are_modules_and_hold_their_checks():
    """`mltd.gradients.check_explosion` is `mltd.check_explosion`."""
    assert isinstance(mltd.gradients, ModuleType)
    assert mltd.gradients.check_explosion is mltd.check_explosion
    assert mltd.overlap.check_row_overlap is mltd.check_row_overlap


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("assert_helthy", "assert_healthy"), ("check_label_leek", "check_label_leak"), ("gradient", "gradients")],
)
def test_an_unknown_name_is_answered_with_the_near_one(wrong, right):
    """A misspelt name is an AttributeError that helps."""
    with pytest.raises(
        AttributeError, match=f"module 'pytest_mltd' has no attribute '{wrong}'; the nearest is '{right}'"
    ):
        getattr(mltd, wrong)


def test_an_unlike_name_gets_no_suggestion():
    """Nothing is near to it, and private names are never searched."""
    with pytest.raises(AttributeError, match=r"no attribute 'zzzzzz'$"):
        mltd.zzzzzz  # noqa: B018
    assert not hasattr(mltd, "__path_of_nothing__")


def test_importing_the_door_imports_nothing_else():
    """One module, until a name is used."""
    code = "import sys, pytest_mltd; print(*[m for m in sys.modules if m.startswith('pytest_mltd')])"
    assert python(code) == "pytest_mltd"


def test_listing_the_names_imports_no_room():
    """The files are read, not run: completion in an editor loads no engine."""
    code = "import sys, pytest_mltd; dir(pytest_mltd); print(*[m for m in sys.modules if m.startswith('pytest_mltd.')])"
    loaded = python(code).split()
    assert not [m for m in loaded if m.count(".") > 1], loaded


def test_a_table_question_loads_no_torch():
    """Asking a table does not cost the import of torch."""
    assert python("import sys, pytest_mltd as m; m.assert_no_leakage; print('torch' in sys.modules)") == "False"


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import pytest_mltd as mltd\n"
INSTALL = (
    "needs torch, which is not installed: pip install 'pytest-mltd[torch]' (keeps an installed torch of 2.6 or later)"
)


@pytest.mark.parametrize(
    "use",
    [
        "with mltd.record(): pass",
        "mltd.run(lambda: None)",
        "mltd.assert_reproducible(lambda: None)",
    ],
)
def test_without_torch_a_name_that_needs_it_says_so_in_one_sentence(use):
    """The exact line to install it, where it is needed; no traceback of a foreign import in between."""
    said = python(
        f"{WITHOUT_TORCH}try:\n    {use}\nexcept mltd.MissingExtra as error:\n    print(error, error.__cause__)"
    )
    assert said.endswith(f"{INSTALL} None")


def test_without_torch_tables_and_traces_are_still_judged():
    """The base install answers every question that needs no torch."""
    assert python(
        f"{WITHOUT_TORCH}[getattr(mltd, n) for n in dir(mltd) if n[:5] == 'check']; print(mltd.Trace.__name__)"
    ) == ("Trace")


def test_a_new_check_is_on_the_door_without_an_edit(tmp_path):
    """A file dropped into a family's folder is found by name, family and `dir`."""
    shutil.copytree(PACKAGE, tmp_path / "pytest_mltd", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pytest_mltd" / "checks" / "runs" / "tides.py").write_text(
        "from pytest_mltd.core.asking import asserting, check\n"
        "from pytest_mltd.core.findings import Finding\n\n\n"
        '@check("run")\ndef check_ebb(run, *, allow=None) -> Finding:\n    """Ask."""\n'
        '    return Finding(ok=True, headline="none")\n\n\nassert_no_ebb = asserting(check_ebb)\n'
    )
    code = (
        "import pytest_mltd as m; assert 'tmp' in m.__file__, m.__file__\n"
        "print(m.check_ebb({}).id, m.assert_no_ebb({}), m.tides.__name__, 'check_ebb' in dir(m))"
    )
    assert python(code, path=tmp_path) == "tides.ebb None pytest_mltd.checks.runs.tides True"


def test_the_command_is_also_a_module():
    """`python -m pytest_mltd` is `mltd`."""
    done = subprocess.run([sys.executable, "-m", "pytest_mltd", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "mltd run" in done.stdout


def test_type_checkers_see_every_name(tmp_path):
    """Under `mypy --strict` every public name has a type, the twins keep their arguments, and a misspelt name is an error."""
    names = [n for n in dir(mltd) if not n.startswith("__")]
    lines = ["import pytest_mltd as mltd", *(f"reveal_type(mltd.{n})" for n in names)]
    lines += ["mltd.assert_helthy", "mltd.assert_no_explosion(1, max_growht=3)"]
    (tmp_path / "use.py").write_text("\n".join(lines) + "\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*mypy, "--cache-dir", str(tmp_path / "cache"), "use.py"], cwd=tmp_path, capture_output=True, text=True
    )
    said = {int(line.split(":")[1]): line for line in done.stdout.splitlines() if line.startswith("use.py")}
    for number, name in enumerate(names, start=2):
        assert "Revealed type is" in said[number], said[number]
        assert 'Revealed type is "Any"' not in said[number], f"{name} has no type: {said[number]}"
    assert 'Module has no attribute "assert_helthy"' in said[len(names) + 2]
    assert 'Unexpected keyword argument "max_growht"' in said[len(names) + 3]
