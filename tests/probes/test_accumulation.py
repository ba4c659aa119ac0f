"""Micro-batches against the batch that they are parts of: each way of weighing them wrongly has its reading."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.core.findings import CheckFailed, NotAsked
from pytest_mltd.probes.accumulation import assert_accumulation_agrees, check_accumulation_agrees


def train(parts, *, fault="", norm=nn.Identity, dropout=0.0):
    """A plain loop over batches of 32, each in so many parts."""
    torch.manual_seed(1)
    x = torch.randn(128, 6)
    y = (x.sum(1) > 0).long()
    if fault in ("means of unequal parts", "sums over the whole"):
        y[torch.rand(128) < 0.4] = -100
    model = nn.Sequential(nn.Linear(6, 8), norm(8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(5):
        rows = torch.randperm(128)[:32]
        for part in rows.split(32 // parts):
            if fault == "cleared between":
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x[part]), y[part], reduction="sum" if fault.startswith("sums") else "mean")
            if fault.startswith("sums"):
                (loss / (y[rows] != -100).sum()).backward()
            else:
                (loss / (1 if fault in ("not divided",) else parts)).backward()
        if fault == "divided twice":
            for parameter in model.parameters():
                parameter.grad /= parts
        optimizer.step()
        if fault != "kept for the next" or parts == 1:
            optimizer.zero_grad()


READINGS = {
    "not divided": (0, "All gradients are 4 times as large: they were added up, and not averaged."),
    "divided twice": (0, "All gradients are 1/4 of what they should be: they were divided twice."),
    "cleared between": (
        0,
        "Gradients are set to zero between the parts (3 times in the first step): only the last part counts.",
    ),
    "means of unequal parts": (0, "the parts are weighed unequally, say by means over unequal numbers."),
    "kept for the next": (1, "The steps before agree; what one step leaves behind for the next does not."),
}


@pytest.mark.parametrize("fault", READINGS)
def test_each_fault_has_its_reading(fault):
    """The step from which on they differ, and what the factors of all parameters say together."""
    step, reading = READINGS[fault]
    finding = check_accumulation_agrees(lambda parts: train(parts, fault=fault))
    assert finding.failed
    assert finding.step == step
    assert reading in finding.shows


@pytest.mark.parametrize("fault", ["", "sums over the whole"])
def test_a_correct_loop_agrees(fault):
    """Divided losses agree to rounding, with dropout too, and so do sums over unequal parts divided by the whole."""
    finding = check_accumulation_agrees(lambda parts: train(parts, fault=fault, dropout=0.3))
    assert finding.ok, str(finding)
    assert finding.amount < 1e-5
    assert finding.looked_at == "gradient norms of 4 parameters at 3 steps, dropout off"


def test_batch_norm_is_asked_for_the_scale_only():
    """Statistics of smaller batches are no fault; a sum in place of a mean is one all the same."""
    finding = check_accumulation_agrees(lambda parts: train(parts, norm=nn.BatchNorm1d))
    assert finding.ok, str(finding)
    assert "only the scale was asked" in finding.looked_at
    finding = check_accumulation_agrees(lambda parts: train(parts, norm=nn.BatchNorm1d, fault="not divided"))
    assert "added up, and not averaged" in finding.shows


def test_the_whole_text():
    """Parameter, factor, limit, the worst of the others, the reading, one step."""
    with pytest.raises(CheckFailed) as error:
        assert_accumulation_agrees(lambda parts: train(parts, fault="not divided"), parts=2)
    head, _, columns, culprit, *rest = str(error.value).splitlines()
    assert head.startswith("training.accumulation_agrees: the gradient of '")
    assert head.endswith("' is 2 times as large in 2 parts as in one batch at step 0 (rtol=0.001)")
    assert columns.split() == ["parameter", "one", "batch", "2", "parts", "times"]
    assert culprit.startswith("  > ")
    assert rest[-2:] == [
        "    All gradients are 2 times as large: they were added up, and not averaged.",
        "    next: divide the loss of each part by the number of parts",
    ]


def test_a_parameter_may_be_left_out():
    """An allowed parameter is not compared, and said to be allowed."""
    finding = check_accumulation_agrees(
        lambda parts: train(parts, fault="not divided"), allow={"*": "summed on purpose"}
    )
    assert finding.ok
    assert ("0.weight", "summed on purpose") in finding.allowed


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda parts: train(1), "with 4 parts a step makes as many forward passes as with one (1)"),
        (lambda parts: None, "no optimizer step was seen"),
        (lambda parts: train(parts) if parts == 1 else other(parts), "the first step did not see the same samples"),
        (
            lambda parts: train(1) if parts == 1 else other(parts, size=4),
            "a step saw 32 samples in one part and 16 in 4",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_not_judged(call, reason):
    """Different samples, different numbers of them, or an argument that is not used."""
    with pytest.raises(NotAsked) as error:
        assert_accumulation_agrees(call)
    assert reason in str(error.value)


def other(parts, size=8):
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(parts):
        model(torch.randn(size, 6)).mean().backward()
    optimizer.step()


def test_misuse_names_the_argument():
    """No function, one part, a training that raises with several."""
    with pytest.raises(TypeError, match="^train: "):
        check_accumulation_agrees(None)
    with pytest.raises(ValueError, match="^parts: at least 2"):
        check_accumulation_agrees(train, parts=1)
    with pytest.raises(ValueError, match="^train: with 3 parts: it raised"):
        check_accumulation_agrees(lambda parts: train(1) if parts == 1 else 1 / 0, parts=3)
