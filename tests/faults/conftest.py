"""The small programs, and what is asked of each without a fault: once for the whole session."""

import functools
import importlib.util
from pathlib import Path

import pytest
import torch

import pytest_mltd as mltd

_SPEC = importlib.util.spec_from_file_location("mltd_fault_programs", Path(__file__).with_name("programs.py"))
_PROGRAMS = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_PROGRAMS)


def diagnosed(program, steps):
    """Record one of the programs and ask everything that applies."""
    with mltd.record() as run:
        getattr(_PROGRAMS, program)(steps)
    return mltd.diagnose(run)


@functools.cache
def healthy(program, steps):
    """Return the diagnosis of a program as it is; each is run once."""
    return diagnosed(program, steps)


@pytest.fixture
def programs():
    """The module of the small programs."""
    return _PROGRAMS


@pytest.fixture
def ask():
    """Record a program and ask everything that applies."""
    return diagnosed


@pytest.fixture
def ask_without():
    """The same of a program without a fault, from the session's own runs."""
    return healthy


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
