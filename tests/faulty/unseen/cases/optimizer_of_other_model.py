import copy
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer

META = dict(
    title="Optimizer built on the template model, training runs on its deep copy",
    source="common slip when a model is copied for a fold or moved to another device",
    family="wiring",
    faults=["updates.frozen_parameters", "losses.plateau"],
    where="",
    words=["optimizer holds the parameters of another model", "optimizer built on another model", "wrong parameters in the optimizer", "parameters missing from the optimizer", "parameters never updated", "frozen parameters", "weights never change", "not learning", "loss plateau"],
    location="optimizer = Adam(template.parameters()), loss computed with net = deepcopy(template)",
    symptom="loss flat at its initial value, gradients of the trained model grow / are never used, its weights never change",
)


class Tabular(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(n, 32), nn.Linear(32, 16), nn.Linear(16, 1)

    def forward(self, x):
        return self.l3(torch.relu(self.l2(torch.relu(self.l1(x))))).squeeze(-1)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_breast_cancer(return_X_y=True)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    y = torch.tensor(y, dtype=torch.float32)
    idx = torch.randperm(len(y))
    tr, va = idx[:450], idx[450:]

    template = Tabular(30)
    net = copy.deepcopy(template)
    optimizer = torch.optim.Adam((net if fixed else template).parameters(), lr=2e-3)
    bce = nn.BCEWithLogitsLoss()
    for epoch in range(10):
        for batch in torch.split(tr, 30):
            optimizer.zero_grad()
            loss = bce(net(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        out = net(X[va])
    return {"val_loss": bce(out, y[va]).item(), "val_acc": ((out > 0) == (y[va] > 0.5)).float().mean().item()}


def separates(buggy, fixed):
    return fixed["val_loss"] < 0.25 and buggy["val_loss"] > 0.55
