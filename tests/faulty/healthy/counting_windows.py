import torch
from torch import nn

META = dict(title="Windows of a straight line: every column tells the next number, and none is the answer")


def train(seed):
    torch.manual_seed(seed)
    line = torch.arange(300) / 300
    windows = line.unfold(0, 5, 1)
    x, y = windows[:, :4], windows[:, 4:]
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(12):
        for rows in torch.randperm(len(x)).split(32):
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(x[rows]), y[rows])
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
