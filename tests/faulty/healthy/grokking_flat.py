import torch
from torch import nn

META = dict(title="hard parity: flat for long in a short, cut test")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 2))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(80):
        x = (torch.rand(64, 12) < 0.5).float()
        loss = nn.functional.cross_entropy(net(x), x[:, :3].sum(1).long() % 2)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
