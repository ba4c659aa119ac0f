import torch
import torch.nn as nn
from sklearn.datasets import load_diabetes

META = dict(title="Two tasks, two backward calls per step on a shared trunk (retain_graph), one optimizer",
            looks_like="gradients accumulate over several backward calls, the same graph is used twice", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    X, y = load_diabetes(return_X_y=True)
    X = torch.tensor(X / X.std(0), dtype=torch.float32)
    y = torch.tensor((y - y.mean()) / y.std(), dtype=torch.float32)
    high = (y > 0).float()
    perm = torch.randperm(442)
    tr, te = perm[:350], perm[350:]
    trunk = nn.Sequential(nn.Linear(10, 24), nn.ELU())
    reg, cls = nn.Linear(24, 1), nn.Linear(24, 1)
    opt = torch.optim.SGD([*trunk.parameters(), *reg.parameters(), *cls.parameters()], lr=0.03, momentum=0.7)
    for epoch in range(25):
        for b in tr[torch.randperm(350)].split(35):
            opt.zero_grad()
            z = trunk(X[b])
            nn.functional.mse_loss(reg(z).squeeze(1), y[b]).backward(retain_graph=True)
            (0.5 * nn.functional.binary_cross_entropy_with_logits(cls(z).squeeze(1), high[b])).backward()
            opt.step()
    with torch.no_grad():
        z = trunk(X[te])
        mse = nn.functional.mse_loss(reg(z).squeeze(1), y[te]).item()
        acc = ((cls(z).squeeze(1) > 0) == (high[te] > 0.5)).float().mean().item()
    return {"mse": mse, "acc": acc}


def healthy(m):
    return m["mse"] < 0.8 and m["acc"] > 0.62
