import copy

import torch
from torch import nn

META = dict(title="The optimizer holds the parameters of a copy", faults=["updates.frozen_parameters"], where="", style="model registry")


def build(fixed):
    prototype = nn.Sequential(nn.Linear(7, 24), nn.ReLU(), nn.Linear(24, 2))
    model = prototype if fixed else copy.deepcopy(prototype)
    return model, torch.optim.Adam(prototype.parameters(), lr=1e-2)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model, opt = build(fixed)
    for _ in range(150):
        x = torch.randn(32, 7)
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > x[:, 1]).long())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
