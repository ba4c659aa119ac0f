import torch
from torch import nn

META = dict(
    title="Inputs and labels are shuffled by two different permutations",
    faults=["model.unlearnable_labels", "losses.plateau"],
    where="",
    style="function for the data, many fresh rows",
)


def data(n, together):
    x = torch.randn(n, 6)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).long()
    p = torch.randperm(n)
    return x[p], y[p if together else torch.randperm(n)]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x, y = data(20000, fixed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(300):
        i = slice(step * 64, step * 64 + 64)
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
