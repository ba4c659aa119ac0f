import torch
from torch import nn

META = dict(title="Batches of one row: losses jump over four orders of magnitude from step to step", looks_like="spikes")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 24), nn.Tanh(), nn.Linear(24, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.02)
    w = torch.randn(5, 1)
    for _ in range(800):
        x = torch.randn(1, 5)
        y = x @ w + 0.1 * torch.randn(1, 1)
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
