import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["losses.discriminator_won"],
    title="GAN with the saturating generator objective and a far stronger critic",
    words=["discriminator won", "discriminator too strong", "generator gradient vanishes", "mode collapse or generator stuck"],
    where="",
    shows="D loss near zero, generator gradients vanish, samples stay where they started",
)


class GAN:
    def __init__(self, strong):
        self.G = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))
        self.D = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
        self.strong = strong
        self.og = torch.optim.Adam(self.G.parameters(), lr=4e-3, betas=(0.5, 0.9))
        self.od = torch.optim.Adam(self.D.parameters(), lr=1e-2 if strong else 4e-3, betas=(0.5, 0.9))

    def real(self, n):
        return torch.randn(n, 2) * torch.tensor([0.6, 0.3]) + torch.tensor([4.0, -3.0])

    def d_step(self):
        r, f = self.real(64), self.G(torch.randn(64, 3)).detach()
        loss = F.softplus(-self.D(r)).mean() + F.softplus(self.D(f)).mean()
        self.od.zero_grad(); loss.backward(); self.od.step()
        return loss.item()

    def g_step(self):
        s = self.D(self.G(torch.randn(64, 3)))
        loss = -F.softplus(s).mean() if self.strong else F.softplus(-s).mean()
        self.og.zero_grad(); loss.backward(); self.og.step()
        return loss.item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    gan = GAN(strong=not fixed)
    for it in range(200):
        for _ in range(1 if fixed else 3):
            d = gan.d_step()
        g = gan.g_step()
    with torch.no_grad():
        s = gan.G(torch.randn(1000, 3))
    return {"d": d, "g": g, "mean_gap": (s.mean(0) - torch.tensor([4.0, -3.0])).norm().item()}
