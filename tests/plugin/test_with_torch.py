"""`--mltd-repro` on tests that really train. A few sessions, each in a process of its own: importing torch takes seconds."""

import pytest

BODY = """
import os
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

SESSION = os.getpid()
# Work on several threads at import: without care every fork of this process would hang in its first large operation.
WARM = torch.mm(torch.ones(600, 600), torch.ones(600, 600)).sum() + torch.ones(1 << 20).add(1).sum()


def train(noise=None, epochs=40):
    x, y = torch.randn(64, 5), torch.randint(0, 3, (64,))
    model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(epochs):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
            if noise is not None:
                xb = xb + torch.from_numpy(noise.random(5, dtype=np.float32))
            loss = torch.nn.functional.cross_entropy(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.item()


def test_same(mltd_train):
    assert mltd_train(train).steps == 12
    assert torch.get_num_threads() == 2
    assert torch.ones(1 << 20).add(1).sum() == 2 << 20


def test_unseeded(mltd_train):
    mltd_train(train, np.random.default_rng())


def test_is_cut(mltd_train):
    run = mltd_train(train)
    assert run.trace.ended == "cut"
    assert run.result is None


def test_in_a_fork(mltd_train):
    assert os.getppid() == SESSION
"""


def test_a_suite_that_trains(pytester, monkeypatch):
    """Forks of a process that ran torch at import work, on as many threads as asked; runs are cut, differences are named."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    pytester.makepyfile(test_train=BODY)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist", "--mltd-repro", "--mltd-steps=12")
    result.assert_outcomes(passed=3, failed=1)
    text = result.stdout.str()
    assert "mltd: each test twice, seed 0, at most 12 steps" in text
    assert "3 of 4 tests run twice" in text
    assert (
        "CheckFailed: runs.divergence: not reproducible: unseeded random generator: numpy.random.default_rng()" in text
    )
    assert "without a seed at test_train.py:34" in text


def test_torch_imported_by_the_run_alone_has_its_threads_both_times(pytester, monkeypatch):
    """As a test that `--write-test` makes: it names a script and imports nothing. Bits are compared on two threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    script = BODY.split("def test_same")[0].replace("import pytest\n", "")
    pytester.makepyfile(train=script + "if __name__ == '__main__':\n    torch.manual_seed(0)\n    train()\n")
    pytester.makepyfile(
        test_found="import pytest_mltd as mltd\ndef test_it():\n    mltd.assert_healthy(mltd.run('train.py'))\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist", "--mltd-repro", "--mltd-steps=12")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines("*test_found.py::test_it*passed 2 of 2, bit for bit*")


def test_a_slice(pytester):
    """`--mltd-slice` cuts the loaders of an unedited training, without `--mltd-repro` and with it."""
    pytester.makepyfile(
        test_train=BODY.split("def test_same")[0] + "def test_it(mltd_train):\n    mltd_train(train, epochs=1)\n"
        "LOADER = DataLoader(TensorDataset(torch.randn(64, 5)), batch_size=8)\n"
        "def test_made_at_import(mltd_train):\n    assert mltd_train(lambda: sum(len(x) for x, in LOADER)).result == 16\n"
        "def by_hand(slice):\n    train(epochs=1) if slice is None else None\n    return slice\n"
        "def test_by_hand(mltd_train):\n    assert mltd_train(by_hand).result == 16\n"
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist", "--mltd-repro", "--mltd-slice=16")
    result.assert_outcomes(passed=3)
    assert "mltd: each test twice, seed 0, at most 200 steps, 16 samples of each DataLoader" in result.stdout.str()
    assert "no test iterated over one" not in result.stdout.str()


@pytest.mark.slow
def test_the_fresh_interpreter_trains_too(pytester):
    """Each run in a new process: the training that is the same passes, what it draws at import does not."""
    body = BODY.split("def test_same")[0] + (
        "MODEL = torch.nn.Linear(5, 3)\n"
        "def test_same(mltd_train):\n    mltd_train(train)\n"
        "def test_import(mltd_train):\n"
        "    mltd_train(lambda: train(np.random.default_rng(int(abs(MODEL.weight[0, 0]) * 1e6))))\n"
    )
    pytester.makepyfile(test_train=body)
    result = pytester.runpytest_subprocess(
        "-p", "no:randomly", "-p", "no:xdist", "--mltd-repro", "--mltd-steps=5", "-o", "mltd_repro_interpreter=fresh"
    )
    result.assert_outcomes(passed=1, failed=1)
