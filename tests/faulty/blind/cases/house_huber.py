import warnings

import torch
import torch.nn as nn
from sklearn.datasets import make_friedman1
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["objective.loss_broadcast"],
    title="Friedman regression with Huber loss, column output against flat target",
    words=["shape mismatch broadcast in the loss", "(N,1) against (N,)", "prediction and target broadcast"],
    where="",
    shows="predictions fall to the mean, R2 stays near zero",
)


class Regressor(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.seq = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, x):
        return self.seq(x)


def train(seed, fixed=False):
    warnings.simplefilter("ignore")
    torch.manual_seed(seed)
    X, y = make_friedman1(1000, noise=0.3, random_state=seed)
    X = torch.tensor(X).float()
    y = torch.tensor((y - y.mean()) / y.std()).float()
    dl = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=40, shuffle=True)
    net = Regressor(10)
    crit = nn.HuberLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for epoch in range(15):
        for xb, yb in dl:
            out = net(xb)
            if fixed:
                yb = yb.unsqueeze(1)
            loss = crit(out, yb)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        pr = net(X[800:]).flatten()
        r2 = 1 - ((pr - y[800:]) ** 2).mean() / y[800:].var()
    return {"loss": loss.item(), "r2": r2.item(), "pred_std": pr.std().item()}
