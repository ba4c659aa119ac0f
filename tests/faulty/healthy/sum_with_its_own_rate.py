import torch
from torch import nn

META = dict(
    title="A summed squared error, with a rate that is small enough for it", looks_like="a sum instead of a mean"
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=5e-4, momentum=0.9)
    for _ in range(220):
        x = torch.randn(64, 6)
        y = x[:, :1] - 0.5 * x[:, 1:2]
        loss = ((net(x) - y) ** 2).sum()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
