import torch
from torch import nn

META = dict(title="A pretrained tanh net whose units sit at their limits is tuned with a small rate")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(400, 10)
    y = (x[:, 0] * x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    with torch.no_grad():
        net[0].weight.mul_(8)
        net[2].weight.mul_(4)
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(250):
        i = torch.randint(0, 400, (40,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
