"""Trainings that follow Python's hash seed, with their repaired twins: equal in two forks, different in two processes."""

import torch
from torch import nn


def fit(inputs, targets, *, steps=8, model=None, order=None):
    """Train a small net on whole batches of four, in the order given; return its last loss."""
    model = model or nn.Sequential(nn.Linear(inputs.shape[1], 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    order = list(range(len(inputs))) if order is None else order
    loss = torch.zeros(())
    for step in range(steps):
        rows = [order[(4 * step + k) % len(order)] for k in range(4)]
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


def class_indices_from_a_set(fixed=False):
    names = [["cat", "dog", "bird"][k] for k in torch.randint(0, 3, (32,)).tolist()]
    classes = sorted(set(names)) if fixed else list(set(names))
    return fit(torch.randn(32, 5), torch.tensor([classes.index(n) for n in names]))


def buckets_from_hash_of_text(fixed=False):
    words = [f"user{k}" for k in range(32)]
    buckets = [sum(map(ord, w)) % 3 if fixed else hash(w) % 3 for w in words]
    return fit(torch.randn(32, 5), torch.tensor(buckets))
