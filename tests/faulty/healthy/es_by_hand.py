import torch
from torch import nn

META = dict(title="Evolution strategy writes p.grad itself, no backward")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Linear(6, 1)
    opt = torch.optim.Adam(net.parameters(), lr=0.05)
    w = torch.randn(6, 1)
    for _ in range(150):
        x = torch.randn(32, 6)
        y = x @ w
        opt.zero_grad()
        with torch.no_grad():
            for p in net.parameters():
                p.grad = torch.zeros_like(p)
            for _ in range(8):
                e = [torch.randn_like(p) for p in net.parameters()]
                for s in (1, -1):
                    for p, d in zip(net.parameters(), e):
                        p.add_(0.1 * s * d)
                    f = nn.functional.mse_loss(net(x), y).item()
                    for p, d in zip(net.parameters(), e):
                        p.sub_(0.1 * s * d)
                        p.grad.add_(d * f * s / 1.6)
        opt.step()
    return {"loss": nn.functional.mse_loss(net(x), y).item()}
