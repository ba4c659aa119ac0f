import torch
import torch.nn as nn
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale

META = dict(
    title="maximize=True left in the optimizer after switching from an adversarial attack to training",
    source="torch.optim docs (maximize flag); PGD attack code reused as training code",
    family="optimizer",
    faults=["losses.loss_divergence", "gradients.explosion"],
    where="",
    words=["gradient ascent", "maximize=True", "wrong sign", "loss rises steadily", "loss divergence", "training diverges", "exploding loss"],
    location="torch.optim.SGD(..., maximize=True)",
    symptom="training loss grows from the first step on without bound, accuracy falls to 0",
)


def make_optimizer(params, cfg):
    return torch.optim.SGD(params, **cfg)


CFG = {"lr": 0.05, "momentum": 0.5}


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_wine(return_X_y=True)
    p = torch.randperm(len(y))
    X, y = torch.tensor(scale(X), dtype=torch.float32)[p], torch.tensor(y)[p]
    clf = nn.Sequential(nn.Linear(13, 24), nn.SiLU(), nn.Linear(24, 3))
    opt = make_optimizer(clf.parameters(), CFG if fixed else {**CFG, "maximize": True})
    log = []
    for epoch in range(30):
        for s in range(0, 130, 26):
            out = clf(X[s:s + 26])
            loss = nn.functional.cross_entropy(out, y[s:s + 26])
            opt.zero_grad()
            loss.backward()
            opt.step()
            log.append(loss.item())
    with torch.no_grad():
        acc = (clf(X[130:]).argmax(1) == y[130:]).float().mean().item()
    return {"first": log[0], "last": log[-1], "acc": acc}


def separates(buggy, fixed):
    return fixed["acc"] > 0.85 and buggy["acc"] < 0.5 and not buggy["last"] < 10 * buggy["first"]
