"""Validation losses: torch's own are recorded, hand-written ones are named as not seen, training is never taken for one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.recording.recorder import record

X, Y = torch.randn(12, 4), torch.randn(12, 1)
LABELS = torch.randint(0, 3, (12,))


def step(model, optimizer, loss=F.mse_loss):
    optimizer.zero_grad()
    value = loss(model(X), Y)
    value.backward()
    optimizer.step()
    return value.item()


@pytest.fixture
def made():
    model = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.1))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


@pytest.mark.parametrize("level", ["losses", "default"])
def test_a_loss_under_no_grad_is_a_validation_loss(made, level):
    """The usual evaluation: eval, no_grad, loss, train; with the step it was computed at."""
    model, optimizer = made
    seen = []
    with record(level=level) as run:
        for _ in range(3):
            step(model, optimizer)
            model.eval()
            with torch.no_grad():
                seen.append(F.mse_loss(model(X), Y).item())
            model.train()
    assert run.trace.val["value"].tolist() == seen
    assert run.trace.val["step"].tolist() == [1, 2, 3]
    assert len(run.trace.losses["value"]) == 3
    assert not [f for f in run.trace.facts if f.kind == "validation_unseen"]


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z.repeat(1, 3), LABELS),
        lambda z: F.nll_loss(z.repeat(1, 3), LABELS),
        lambda z: F.mse_loss(z, Y),
        lambda z: F.l1_loss(z, Y),
        lambda z: F.smooth_l1_loss(z, Y),
        lambda z: F.huber_loss(z, Y),
        lambda z: F.binary_cross_entropy(z.sigmoid(), Y.sigmoid()),
        lambda z: F.binary_cross_entropy_with_logits(z, Y.sigmoid()),
        lambda z: nn.MSELoss(reduction="none")(z, Y),
    ],
)
def test_every_loss_of_torch_is_seen(made, loss):
    """Functions and modules, whatever was imported before; an unreduced one counts as its mean."""
    model, _ = made
    with record() as run, torch.no_grad():
        model.eval()
        value = loss(model(X))
    assert run.trace.val["value"].tolist() == [pytest.approx(value.mean().item())]


def test_eval_mode_without_no_grad_counts_when_no_backward_follows(made):
    """Forgetting no_grad does not make it training."""
    model, optimizer = made
    with record() as run:
        step(model, optimizer)
        model.eval()
        value = F.mse_loss(model(X), Y)
        model.train()
        step(model, optimizer)
    assert run.trace.val["value"].tolist() == [value.item()]


def test_training_in_eval_mode_is_training(made):
    """A net that was never put back into train mode has training losses, and no validation."""
    model, optimizer = made
    model.eval()
    with record() as run:
        for _ in range(4):
            step(model, optimizer)
    assert len(run.trace.val["value"]) == 0
    assert run.trace.steps["training"].tolist() == [0] * 4


def test_a_loss_after_the_switch_back_belongs_to_the_forward_before_it(made):
    """eval, forward, train, loss: the order of many evaluate() functions."""
    model, optimizer = made
    with record() as run:
        step(model, optimizer)
        model.eval()
        with torch.no_grad():
            out = model(X)
        model.train()
        value = F.mse_loss(out, Y)
        step(model, optimizer)
    assert run.trace.val["value"].tolist() == [value.item()]
    assert not [f for f in run.trace.facts if f.kind == "validation_unseen"]


def test_a_hand_written_loss_is_named_as_not_seen(made):
    """One fact for a place, however often it is reached."""
    model, optimizer = made
    with record() as run:
        for _ in range(3):
            step(model, optimizer)
            model.eval()
            with torch.no_grad():
                ((model(X) - Y) ** 2).mean()
            model.train()
    assert len(run.trace.val["value"]) == 0
    (fact,) = [f for f in run.trace.facts if f.kind == "validation_unseen"]
    assert fact.kind == "validation_unseen"
    assert fact.who == "model"
    assert fact.details["text"] == f"validation forward at {fact.details['site']} computed no loss torch knows"
    assert "test_validation.py:" in fact.details["site"]


def test_the_stream_is_the_line_of_the_loss(made):
    """Two evaluations on two lines are two streams."""
    model, _ = made
    with record() as run, torch.no_grad():
        model.eval()
        F.mse_loss(model(X), Y)
        F.mse_loss(model(X), Y)
    assert len(set(run.trace.val["stream"].tolist())) == 2
