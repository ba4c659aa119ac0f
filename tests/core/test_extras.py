"""What a person reads when a package outside the base install is needed."""

import pickle
import sys

import pytest

from pytest_mltd.core.extras import EXTRA_OF, MissingExtra, missing, need


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_an_installed_package_is_not_complained_about():
    """What can be imported passes in silence."""
    need("pandas", "reading a table")


def test_the_sentence_has_the_line_to_install_it(without_torch):
    """The whole message is one sentence: what for, which package, and the exact command."""
    with pytest.raises(MissingExtra) as caught:
        need("torch", "recording a run")
    assert str(caught.value) == (
        "recording a run needs torch, which is not installed: pip install 'pytest-mltd[torch]' "
        "(keeps an installed torch of 2.6 or later)"
    )
    assert caught.value.name == "torch"


def test_only_torch_is_said_to_be_kept(monkeypatch):
    """Other packages get the plain line."""
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'pytest-mltd\[data\]'$"):
        need("duckdb", "reading a CSV file")


def test_needing_a_package_does_not_import_it(pytester):
    """The question alone costs no import."""
    script = pytester.makepyfile(
        "import sys\nfrom pytest_mltd.core.extras import need\nneed('pandas')\nassert 'pandas' not in sys.modules"
    )
    assert pytester.runpython(script).ret == 0


def test_a_foreign_import_error_is_left_as_it_is():
    """A missing module of the user's own is theirs to see."""
    error = ModuleNotFoundError("No module named 'their_code'", name="their_code")
    assert missing(error) is error


def test_an_import_error_of_an_extra_becomes_the_sentence(without_torch):
    """A submodule counts for its package."""
    better = missing(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), "mltd.record")
    assert str(better).startswith("mltd.record needs torch, which is not installed")


def test_it_survives_pickling(without_torch):
    """A worker process can hand it over."""
    with pytest.raises(MissingExtra) as caught:
        need("torch")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.name, type(again)) == (str(caught.value), "torch", MissingExtra)


def test_every_package_points_at_an_extra_that_exists(pytestconfig):
    """The install line names extras that pyproject.toml declares, and each lists the package."""
    import tomllib

    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    for package, extra in EXTRA_OF.items():
        listed = " ".join(project["optional-dependencies"][extra]).replace("-", "_")
        assert package in listed, f"{package} is not in the extra {extra!r}"
