"""What is taken of a training before each step: names, states and samples, without changing anything."""

import torch
from torch import nn
from torch.nn import functional as F

from pytest_mltd.probes.snapshots import snapshots, without_dropout
from pytest_mltd.recording import hooks


def train(steps=3, *, draw=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for step in range(steps):
        if draw:
            torch.rand(1)
        optimizer.zero_grad()
        model(torch.full((4, 3), float(step))).pow(2).mean().backward()
        optimizer.step()
    return model


def test_a_row_holds_the_state_before_its_step():
    """Weights and gradients by the model's own names, no optimizer state at first, samples by row."""
    with snapshots() as rows:
        train()
    first, second, _ = rows()
    assert list(first["weights"]) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert not any(first["state"].values())
    assert all(second["state"].values())
    assert list(first["buffers"]) == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert [len(batch) for batch in first["samples"]] == [4]
    assert len(set(first["samples"][0])) == 1
    assert first["rates"] == [0.1]


def test_generators_that_moved_before_a_batch_are_named():
    """Only what is drawn between a step and the next forward counts."""
    with snapshots() as rows:
        train(draw=True)
    assert rows()[2]["drawn"] == ["torch"]
    with snapshots() as rows:
        train()
    assert rows()[2]["drawn"] == []


def test_parameters_of_several_models_keep_names_of_their_own():
    """Two networks of one class are told apart; a part that is also called by itself keeps its names."""

    def play():
        one, two = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
        optimizer = torch.optim.SGD([*one.parameters(), *two.parameters()], 0.1)
        one[0](two(one(torch.ones(2, 2)))).sum().backward()
        optimizer.step()

    with snapshots() as rows:
        play()
    assert list(rows()[0]["weights"]) == ["0.weight", "0.bias", "Sequential 2: 0.weight", "Sequential 2: 0.bias"]


def test_watching_changes_nothing_and_ends_with_its_block():
    """Weights are the same bit for bit, and no hook is left."""
    with snapshots():
        watched = train()
    for one, two in zip(watched.parameters(), train().parameters(), strict=True):
        assert torch.equal(one, two)
    assert not hooks.installed()


def test_dropout_is_off_in_its_block_only():
    """Modules and functions pass their input on, and drop again afterwards."""
    x = torch.ones(200)
    with without_dropout():
        assert torch.equal(nn.Dropout(0.5)(x), x)
        assert torch.equal(F.dropout(x, 0.5), x)
        q = torch.rand(1, 4, 8)
        attended = [F.scaled_dot_product_attention(q, q, q, dropout_p=p, is_causal=True) for p in (0.5, 0.0)]
        assert torch.equal(*attended)
    assert not torch.equal(F.dropout(x, 0.5), x)
