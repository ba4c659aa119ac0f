import torch
from torch import nn

META = dict(title="Losses are collected together with their graphs", faults=["objective.kept_graph"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    history = []
    total = 0.0
    for _ in range(320):
        x = torch.randn(32, 6)
        loss = nn.functional.mse_loss(net(x)[:, 0], x[:, 0] * x[:, 1])
        opt.zero_grad()
        loss.backward()
        opt.step()
        total = total + (loss.item() if fixed else loss)
        history.append(loss.detach())
    return {"mean": float(total) / len(history)}
