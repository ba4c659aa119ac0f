import torch
from torch import nn

META = dict(title="VAE whose KL weight is annealed up: the loss rises for a while", looks_like="loss divergence")


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
        self.dec = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 20))

    def forward(self, x):
        mu, logvar = self.enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
        return self.dec(z), kl


def train(seed):
    torch.manual_seed(seed)
    mix = torch.randn(4, 20)
    vae = VAE()
    opt = torch.optim.Adam(vae.parameters(), lr=3e-3)
    for step in range(300):
        x = torch.randn(64, 4) @ mix
        out, kl = vae(x)
        loss = ((out - x) ** 2).sum(1).mean() * 0.2 + min(1.0, max(0.0, (step - 100) / 120)) * kl
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
