"""`--mltd-repro` on a test whose training goes wrong: the operation is named without being asked for."""

import pytest

BODY = """
import pytest_mltd as mltd
import torch


def train():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(6):
        x = torch.rand(5, 3) * (step != 4)
        loss = model(x).square().sum() + x.sum(1).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_asserts(mltd_train):
    mltd.assert_no_nonfinite(mltd_train(train))


def test_only_records():
    with mltd.record():
        train()
"""


@pytest.mark.slow
def test_a_run_that_goes_wrong_is_run_once_more_and_located(pytester, monkeypatch):
    """A failing test has the birthplace in its own section, a passing one in the summary; the verdict is that of two runs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makepyfile(test_train=BODY)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist", "--mltd-repro")
    result.assert_outcomes(passed=1, failed=1)
    born = "origin.nonfinite: log made -inf in 5 of 5 values out of finite numbers, 5 of them 0, at test_train.py:10, step 4"
    result.stdout.fnmatch_lines(
        ["*reproduced 2 of 2, bit for bit", "*mltd: where it was born*", born, "*2 of 2 tests run twice*", born]
    )
