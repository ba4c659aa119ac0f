import torch
from torch import nn

META = dict(title="Autoencoder with AdamW lr=0.5 (typo for 5e-4)", faults=["updates.update_scale"], where="AdamW")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    mix = torch.randn(4, 24)
    net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 4), nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 24))
    opt = torch.optim.AdamW(net.parameters(), lr=5e-3 if fixed else 0.5)
    for _ in range(200):
        x = torch.randn(64, 4) @ mix
        loss = ((net(x) - x) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
