import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["updates.frozen_parameters"],
    title="Network gets its stem and head replaced after the optimizer was built",
    words=["optimizer made before the model was replaced", "optimizer holds the old parameters", "new layers not in the optimizer", "parameters missing from the optimizer"],
    where="",
    shows="replaced layers have gradients but never move",
)


def adapt(model, n_in, n_out):
    model.stem = nn.Sequential(nn.Linear(n_in, 32), nn.BatchNorm1d(32))
    model.head = nn.Linear(32, n_out)
    return model


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(10, 32)
        self.mid = nn.Sequential(nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.mid(self.stem(x)))


def setup(fixed):
    model = Base()
    if fixed:
        model = adapt(model, 64, 10)
        return model, torch.optim.Adam(model.parameters(), lr=2e-3)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    return adapt(model, 64, 10), opt


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    dl = DataLoader(TensorDataset(x[:1400], y[:1400]), 50, shuffle=True)
    model, opt = setup(fixed)
    for ep in range(6):
        model.train()
        for xb, yb in dl:
            loss = nn.functional.cross_entropy(model(xb), yb)
            model.zero_grad()
            loss.backward()
            opt.step()
    model.eval()
    with torch.no_grad():
        return {"loss": loss.item(), "acc": (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()}
