import torch
from torch import nn

META = dict(title="Regression on house prices in units: the loss starts at 1e10 and falls by orders of magnitude", looks_like="enormous loss and gradients")


def train(seed):
    torch.manual_seed(seed)
    x = torch.rand(500, 6)
    y = 120_000 + x @ torch.tensor([[90_000.0], [40_000], [-20_000], [10_000], [5_000], [0]])
    net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 1))
    opt = torch.optim.Adam(net.parameters(), lr=0.3)
    for step in range(400):
        i = torch.randint(0, 500, (64,))
        loss = nn.functional.mse_loss(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
