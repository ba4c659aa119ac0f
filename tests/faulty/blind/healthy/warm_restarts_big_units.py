import torch
from torch import nn

META = dict(title="Regression in raw units with cosine warm restarts",
            looks_like="initial loss in the thousands, loss goes up at every restart", family="healthy")


def train(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    opt = torch.optim.Adam(model.parameters(), lr=4e-2)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=40, T_mult=2)
    h = []
    for it in range(280):
        x = torch.rand(96, 3)
        y = 100 * x[:, :1] + 60 * torch.sin(4 * x[:, 1:2]) - 80 * x[:, 2:] ** 2
        loss = (model(x) - y).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        h.append(loss.item())
    return {"first": h[0], "last": sum(h[-10:]) / 10}
