"""The corpus under the whole diagnosis: each faulty program's cause first and at its place, nothing on twins and healthy ones.

Programs are run as their authors wrote them, in this process, on one thread. `benchmarks/error_rates.py` prints the rates.
"""

import contextlib
import importlib.util
import io
import sys
import warnings
from pathlib import Path

import pytest

import pytest_mltd as mltd

torch = pytest.importorskip("torch")

HERE = Path(__file__).parent
FAULTY = sorted((HERE / "cases").glob("*.py"))
HEALTHY = sorted((HERE / "healthy").glob("*.py"))
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]


def load(path):
    """Return the program as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"program_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def diagnosed(path, seed, **arguments):
    """Return what a program is, and the diagnosis of its recorded run."""
    program = load(path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), mltd.record() as run:
            warnings.simplefilter("ignore")
            program.train(seed, **arguments)
        return program.META, mltd.diagnose(run)
    finally:
        torch.set_num_threads(threads)
        del sys.modules[program.__name__]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", FAULTY, ids=lambda p: p.stem)
def test_the_cause_of_a_faulty_program_comes_first(path, seed):
    """The first root has an accepted id, and its culprit holds the place."""
    meta, diagnosis = diagnosed(path, seed)
    assert diagnosis.roots, f"nothing was found in: {meta['title']}"
    assert diagnosis.roots[0].id in meta["faults"], str(diagnosis)
    assert meta["where"] in diagnosis.roots[0].culprit


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", FAULTY, ids=lambda p: p.stem)
def test_the_mended_twin_is_left_alone(path, seed):
    """With only the fault repaired nothing fails."""
    _, diagnosis = diagnosed(path, seed, fixed=True)
    assert diagnosis.ok, str(diagnosis)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("path", HEALTHY, ids=lambda p: p.stem)
def test_a_healthy_program_is_left_alone(path, seed):
    """It looks alarming, and is fine."""
    meta, diagnosis = diagnosed(path, seed)
    assert diagnosis.ok, f"{meta['title']}\n{diagnosis}"
