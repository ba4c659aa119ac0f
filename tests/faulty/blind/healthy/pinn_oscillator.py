import torch
from torch import nn

META = dict(title="Physics-informed net for a damped oscillator",
            looks_like="no labels, inputs require grad, second derivatives, gradients with create_graph", family="healthy")


def d(y, x):
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def train(seed):
    torch.manual_seed(seed)
    u = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.Adam(u.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.993)
    t0 = torch.zeros(1, 1, requires_grad=True)
    first = None
    for it in range(400):
        t = (2.5 * torch.rand(64, 1)).requires_grad_()
        y = u(t)
        dy = d(y, t)
        res = d(dy, t) + 0.4 * dy + 4 * y
        y0 = u(t0)
        loss = res.square().mean() + 10 * (y0 - 1).square().mean() + 10 * d(y0, t0).square().mean()
        first = first or loss.item()
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    t = torch.linspace(0, 2.5, 60)[:, None]
    w = (4 - 0.04) ** 0.5
    true = torch.exp(-0.2 * t) * (torch.cos(w * t) + 0.2 / w * torch.sin(w * t))
    return {"first": first, "last": loss.item(), "err": (u(t) - true).abs().mean().item()}
