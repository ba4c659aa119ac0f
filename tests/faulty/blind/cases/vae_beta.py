import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["activations.posterior_collapse"],
    title="Digits VAE with pixel mean against latent sum in the objective",
    words=["posterior collapse", "KL term too strong", "latent code ignored", "KL collapses to zero"],
    where="",
    shows="KL goes to zero, mu is constant, all reconstructions are the mean image",
)


class VAE(nn.Module):
    def __init__(self, z=8):
        super().__init__()
        self.e = nn.Sequential(nn.Linear(64, 96), nn.ReLU())
        self.mu, self.lv = nn.Linear(96, z), nn.Linear(96, z)
        self.d = nn.Sequential(nn.Linear(z, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x):
        h = self.e(x)
        mu, lv = self.mu(h), self.lv(h)
        return self.d(mu + torch.randn_like(mu) * (lv / 2).exp()), mu, lv


def elbo(out, x, mu, lv, per_pixel):
    rec = F.binary_cross_entropy_with_logits(out, x, reduction="none")
    rec = rec.mean() if per_pixel else rec.sum(1).mean()
    kl = 0.5 * (mu ** 2 + lv.exp() - lv - 1).sum(1).mean()
    return rec + kl, kl


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.tensor(load_digits().data / 16).float()
    m = VAE()
    opt = torch.optim.Adam(m.parameters(), lr=3e-3)
    for it in range(400):
        b = x[torch.randint(0, len(x), (96,))]
        out, mu, lv = m(b)
        loss, kl = elbo(out, b, mu, lv, per_pixel=not fixed)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        _, mu, _ = m(x)
        err = (m.d(mu).sigmoid() - x).square().mean().item()
    return {"kl": kl.item(), "mu_std": mu.std(0).mean().item(), "rec_mse": err, "pixel_var": x.var(0).mean().item()}
