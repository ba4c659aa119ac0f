import torch
import torch.nn as nn
from sklearn.datasets import load_diabetes

META = dict(
    title="SGD with momentum 0.95 and a learning rate that worked without momentum",
    source="effective learning rate lr / (1 - momentum), Goyal et al. 2017; from memory",
    family="optimizer",
    faults=["updates.update_scale", "losses.loss_divergence"],
    where="",
    words=["learning rate too high", "loss divergence", "training diverges", "exploding loss", "exploding gradients", "NaN or inf loss", "momentum too high"],
    location="torch.optim.SGD(lr=0.8, momentum=0.95) on a linear model",
    symptom="loss oscillates with growing amplitude and diverges to inf / NaN",
)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_diabetes(return_X_y=True)
    X = torch.tensor(X / X.std(0), dtype=torch.float32)
    y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    tr = torch.randperm(len(X))[:352]
    te = torch.tensor([i for i in range(len(X)) if i not in set(tr.tolist())])
    w = nn.Linear(10, 1)
    sgd = torch.optim.SGD(w.parameters(), lr=0.004 if fixed else 0.8, momentum=0.95)
    for epoch in range(40):
        for b in tr.split(88):
            sgd.zero_grad()
            nn.MSELoss()(w(X[b]).squeeze(1), y[b]).backward()
            sgd.step()
    with torch.no_grad():
        return {"test_mse": nn.functional.mse_loss(w(X[te]).squeeze(1), y[te]).item()}


def separates(buggy, fixed):
    return fixed["test_mse"] < 0.75 and not buggy["test_mse"] < 1e3
