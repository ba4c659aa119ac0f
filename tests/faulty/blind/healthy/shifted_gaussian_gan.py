import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Plain GAN on a shifted Gaussian, both losses flat near their equilibrium",
            looks_like="losses do not fall; discriminator near chance; detach in the D step", family="healthy")


class Gen(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, n):
        return self.net(torch.randn(n, 3))


def train(seed):
    torch.manual_seed(seed)
    target = torch.tensor([3.0, -2.0])
    G = Gen()
    D = nn.Sequential(nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1))
    og = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.9))
    od = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.9))
    start = (G(500).mean(0) - target).norm().item()
    for it in range(400):
        real = target + 0.5 * torch.randn(64, 2)
        with torch.no_grad():
            fake = G(64)
        d = F.softplus(-D(real)).mean() + F.softplus(D(fake)).mean()
        od.zero_grad(); d.backward(); od.step()
        D.requires_grad_(False)
        g = F.softplus(-D(G(64))).mean()
        og.zero_grad(); g.backward(); og.step()
        D.requires_grad_(True)
    return {"gap_start": start, "gap_end": (G(500).mean(0) - target).norm().item(), "d": d.item(), "g": g.item()}
