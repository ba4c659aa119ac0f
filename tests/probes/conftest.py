"""One thread for torch: a process that has run it on several hangs its forks, and other tests may have."""

import importlib.util
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    """Run each test in a folder of its own, on one thread."""
    import torch

    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(name):
    """Import one of the files of programs, once."""
    key = f"mltd_programs_{name}"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, PROGRAMS / f"{name}.py")
        sys.modules[key] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[key])
    return sys.modules[key]


@pytest.fixture
def programs():
    """The files of programs, by name."""
    return load
