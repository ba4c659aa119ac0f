import torch
from torch import nn

META = dict(title="Adadelta lr=1 and Rprop on a second net")


def train(seed):
    torch.manual_seed(seed)
    a = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    o = torch.optim.Adadelta(a.parameters(), lr=1.0)
    w = torch.randn(8, 3)
    for _ in range(250):
        x = torch.randn(48, 8)
        l = nn.functional.cross_entropy(a(x), (x @ w).argmax(1))
        o.zero_grad()
        l.backward()
        o.step()
    X = torch.randn(100, 5)
    Y = X.sum(1, keepdim=True).sin()
    b = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
    o = torch.optim.Rprop(b.parameters())
    for _ in range(80):
        l = nn.functional.mse_loss(b(X), Y)
        o.zero_grad()
        l.backward()
        o.step()
    return {"loss": l.item()}
