import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_wine

META = dict(title="ULMFiT-style gradual unfreezing, one layer group per epoch, all in the optimizer from the start",
            looks_like="layers without gradient for the first epochs, parameters in the optimizer that never moved so far", family="healthy")


class GradualUnfreeze:
    def __init__(self, groups):
        self.groups = groups
        for g in groups[:-1]:
            g.requires_grad_(False)

    def begin_epoch(self, e):
        if e % 3 == 0 and e:
            k = len(self.groups) - 1 - e // 3
            if k >= 0:
                self.groups[k].requires_grad_(True)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    X, y = load_wine(return_X_y=True)
    p = torch.randperm(178)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)[p]
    y = torch.tensor(y)[p]
    groups = [nn.Sequential(nn.Linear(13, 24), nn.Tanh()), nn.Sequential(nn.Linear(24, 24), nn.Tanh()), nn.Linear(24, 3)]
    model = nn.Sequential(*groups)
    cb = GradualUnfreeze(groups)
    opt = torch.optim.Adam(model.parameters(), lr=6e-3)
    for epoch in range(16):
        cb.begin_epoch(epoch)
        for a in range(0, 128, 16):
            opt.zero_grad()
            loss = F.cross_entropy(model(X[a:a + 16]), y[a:a + 16])
            loss.backward()
            opt.step()
    with torch.no_grad():
        acc = (model(X[128:]).argmax(1) == y[128:]).float().mean().item()
    return {"acc": acc, "loss": loss.item()}


def healthy(m):
    return m["acc"] > 0.9
