import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Validation under no_grad, but in train mode",
    faults=["calls.misordered_calls"],
    where="validation",
    style="functions, regression with dropout",
)


def evaluate(model, x, y, fixed):
    if fixed:
        model.eval()
    with torch.no_grad():
        loss = F.mse_loss(model(x), y).item()
    model.train()
    return loss


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(700, 8)
    y = x[:, :1] ** 2 - x[:, 1:2]
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.4), nn.Linear(64, 1))
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    curve = []
    for step in range(240):
        i = torch.randperm(600)[:40]
        loss = F.mse_loss(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 20 == 19:
            curve.append(evaluate(model, x[600:], y[600:], fixed))
    return {"val": curve[-1]}
