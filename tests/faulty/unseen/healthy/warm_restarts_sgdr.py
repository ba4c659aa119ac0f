import torch
import torch.nn as nn

META = dict(title="Cosine warm restarts: the loss jumps at each restart of the learning rate",
            looks_like="loss rises suddenly after steps 60, 180, learning rate near zero before each restart", family="healthy")


def rings(n):
    lab = torch.randint(0, 3, (n,))
    r = lab + 0.6 + 0.33 * torch.randn(n)
    a = torch.rand(n) * 6.2832
    return torch.stack([r * a.cos(), r * a.sin()], 1), lab


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    x, y = rings(1200)
    net = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.25, momentum=0.9)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=60, T_mult=2, eta_min=1e-5)
    hist = []
    for step in range(60 + 120 + 240):
        i = torch.randint(0, 1200, (40,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
        hist.append(loss.item())
    return {"loss": sum(hist[-20:]) / 20}


def healthy(m):
    return m["loss"] < 0.6
