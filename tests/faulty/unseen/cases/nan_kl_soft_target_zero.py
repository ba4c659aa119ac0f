import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_iris

META = dict(
    title="Hand-written KL divergence against soft targets that contain exact zeros",
    source="common slip; torch.nn.functional.kl_div treats 0 * log 0 as 0, a hand-written version does not",
    family="loss",
    faults=["gradients.nonfinite"],
    where="",
    words=["log of zero", "0 * log 0", "0 * inf in the loss", "NaN loss", "NaN loss while gradients are finite", "missing xlogy, clamp or epsilon in log"],
    location="kl(): t * (t.log() - logp) with t = 0 for the impossible class: 0 * -inf; the NaN part is constant, gradients stay finite",
    symptom="loss is NaN from the first batch on while weights stay finite and the accuracy rises; every check on the loss value is blind",
)


def kl(t, logp, fixed):
    if fixed:
        return (torch.special.xlogy(t, t) - t * logp).sum(1).mean()
    return (t * (t.log() - logp)).sum(1).mean()


def soften(y):
    t = torch.zeros(len(y), 3)
    t[torch.arange(len(y)), y] = 0.9
    t[torch.arange(len(y)), torch.where(y == 1, 2, 1)] += 0.1
    return t


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_iris(return_X_y=True)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    y = torch.tensor(y)
    p = torch.randperm(150)
    dl = DataLoader(TensorDataset(X[p[:120]], soften(y[p[:120]])), batch_size=20, shuffle=True)
    net = nn.Sequential(nn.Linear(4, 24), nn.GELU(), nn.Linear(24, 3), nn.LogSoftmax(1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    total = 0.0
    for epoch in range(25):
        total = 0.0
        for xb, tb in dl:
            loss = kl(tb, net(xb), fixed)
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() / len(dl)
    with torch.no_grad():
        acc = (net(X[p[120:]]).argmax(1) == y[p[120:]]).float().mean().item()
    return {"loss": total, "acc": acc}


def separates(buggy, fixed):
    return buggy["loss"] != buggy["loss"] and fixed["loss"] < 0.4 and fixed["acc"] > 0.8
