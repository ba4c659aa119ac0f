import torch
from torch import nn

META = dict(title="GAN whose real labels are drawn from 0.8 to 1.2", looks_like="labels out of range")


def train(seed):
    torch.manual_seed(seed)
    g = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    d = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    og, od = torch.optim.Adam(g.parameters(), 1e-3, (0.5, 0.99)), torch.optim.Adam(d.parameters(), 1e-3, (0.5, 0.99))
    bce = nn.BCEWithLogitsLoss()
    for _ in range(200):
        real = torch.randn(32, 2) * 0.3 + torch.tensor([1.0, -1.0])
        fake = g(torch.randn(32, 4))
        od.zero_grad()
        (bce(d(real), 0.8 + 0.4 * torch.rand(32, 1)) + bce(d(fake.detach()), 0.2 * torch.rand(32, 1))).backward()
        od.step()
        og.zero_grad()
        bce(d(fake), torch.ones(32, 1)).backward()
        og.step()
    return {"mean": fake.mean().item()}
