import torch
from torch import nn

META = dict(
    title="GAN whose discriminator gradients are never cleared",
    faults=["gradients.stale_gradients"],
    where="optimizer 1",
    style="trainer class, two optimizers",
)


class GAN:
    def __init__(self, clear):
        self.gen = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 2))
        self.dis = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
        self.opt_g = torch.optim.Adam(self.gen.parameters(), lr=1e-3, betas=(0.5, 0.999))
        self.opt_d = torch.optim.Adam(self.dis.parameters(), lr=1e-3, betas=(0.5, 0.999))
        self.clear = clear
        self.loss = nn.BCEWithLogitsLoss()

    def batch(self, real):
        fake = self.gen(torch.randn(len(real), 3))
        if self.clear:
            self.opt_d.zero_grad()
        d = self.loss(self.dis(real), torch.ones(len(real), 1)) + self.loss(self.dis(fake.detach()), torch.zeros(len(real), 1))
        d.backward()
        self.opt_d.step()
        self.opt_g.zero_grad()
        self.loss(self.dis(fake), torch.ones(len(real), 1)).backward()
        self.opt_g.step()
        return d.item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    gan = GAN(fixed)
    for _ in range(200):
        d = gan.batch(torch.randn(32, 2) * 0.3 + 1.5)
    return {"d": d}
