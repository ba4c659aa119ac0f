import torch
from torch import nn

META = dict(title="loss times 1000, learning rate by 1000, outliers under Huber")


def train(seed):
    torch.manual_seed(seed)
    n = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    o = torch.optim.SGD(n.parameters(), lr=2e-4)
    w = torch.randn(6, 1)
    for k in range(300):
        x = torch.randn(32, 6)
        y = x @ w + torch.where(torch.rand(32, 1) < 0.05, 100 * torch.randn(32, 1), 0.1 * torch.randn(32, 1))
        l = 1000 * nn.functional.huber_loss(n(x), y)
        o.zero_grad()
        l.backward()
        o.step()
    return {"l": l.item()}
