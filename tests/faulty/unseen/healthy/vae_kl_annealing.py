import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="VAE with KL weight annealed from 0 to 1: the total loss rises while the model gets better",
            looks_like="loss rises in the second third of training", family="healthy")


class VAE(nn.Module):
    def __init__(self, z=6):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
        self.mu, self.logvar = nn.Linear(64, z), nn.Linear(64, z)
        self.dec = nn.Sequential(nn.Linear(z, 64), nn.Tanh(), nn.Linear(64, 64))

    def forward(self, x):
        h = self.enc(x)
        mu, lv = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * lv).exp()
        return self.dec(z), mu, lv


def elbo_terms(x, out, mu, lv):
    rec = F.binary_cross_entropy_with_logits(out, x, reduction="sum") / len(x)
    kl = -0.5 * (1 + lv - mu ** 2 - lv.exp()).sum(1).mean()
    return rec, kl


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    x = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    vae = VAE()
    opt = torch.optim.Adam(vae.parameters(), lr=4e-3)
    first = None
    for step in range(420):
        beta = min(1.0, max(0.0, (step - 120) / 150))
        xb = x[torch.randint(0, len(x), (64,))]
        rec, kl = elbo_terms(xb, *vae(xb))
        loss = rec + beta * kl
        opt.zero_grad()
        loss.backward()
        opt.step()
        first = first or (rec + kl).item()
    return {"first_elbo": first, "rec": rec.item(), "kl": kl.item()}


def healthy(m):
    return m["rec"] + m["kl"] < 0.75 * m["first_elbo"] and m["kl"] > 1
