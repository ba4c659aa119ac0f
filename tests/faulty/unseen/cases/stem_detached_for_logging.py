import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(
    title="Stem features detached for logging, and the detached tensor passed on",
    source="common slip when activations are kept for plots",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["detached graph", "detach() cuts backpropagation", "stem receives no gradient", "parameters without gradient", "frozen layers", "parameters never updated", "layers never updated"],
    location="ResNetish.forward: x = self.stem(x).detach(); stem.0 / stem.2 / stem.4 parameters keep grad None",
    symptom="stem stays at its random values, the rest trains on random features; lower accuracy",
)


class ResNetish(nn.Module):
    def __init__(self, log_features, copy_features):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 2))
        self.neck = nn.Linear(6, 24)
        self.head = nn.Linear(24, 10)
        self.log_features, self.copy_features = log_features, copy_features

    def forward(self, x):
        x = self.stem(x)
        if self.log_features is not None:
            if self.copy_features:
                self.log_features.append(x.detach().mean().item())
            else:
                x = x.detach()
                self.log_features.append(x.mean().item())
        return self.head(torch.tanh(self.neck(x.flatten(1))))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.images / 8 - 1, dtype=torch.float32).unsqueeze(1), torch.tensor(d.target)
    net = ResNetish([], copy_features=fixed)
    opt = torch.optim.Adam(net.parameters(), lr=8e-3)
    for epoch in range(12):
        for b in torch.randperm(1400).split(56):
            opt.zero_grad()
            loss = F.cross_entropy(net(x[b]), y[b])
            loss.backward()
            opt.step()
    net.log_features = None
    with torch.no_grad():
        acc = (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"acc": acc, "loss": loss.item()}


def separates(buggy, fixed):
    return fixed["acc"] > buggy["acc"] + 0.1 and fixed["acc"] > 0.6
