import torch
from torch import nn

META = dict(title="The loss goes through .item() and is wrapped again", faults=["updates.frozen_parameters"], where="0.weight")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(120):
        x = torch.randn(32, 8)
        loss = nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long())
        if not fixed:
            loss = torch.tensor(loss.item(), requires_grad=True)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
