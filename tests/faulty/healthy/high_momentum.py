import torch
from torch import nn

META = dict(title="momentum .98: the loss overshoots and comes back")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.98)
    w = torch.randn(10, 1)
    for _ in range(400):
        x = torch.randn(64, 10)
        l = nn.functional.mse_loss(net(x), x @ w)
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
