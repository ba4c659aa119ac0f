import torch
from torch import nn

META = dict(title="Langevin noise")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.02)
    w = torch.randn(5, 1)
    for _ in range(300):
        x = torch.randn(32, 5)
        loss = nn.functional.mse_loss(net(x), x @ w)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.01)
    return {"loss": loss.item()}
