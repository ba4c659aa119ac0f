import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import torch.nn.functional as F

META = dict(title="VAE with a KL weight growing from zero to one",
            looks_like="the total loss turns upwards in mid run, KL falls after a peak", family="healthy")


class VAE(nn.Module):
    def __init__(self, z=6):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2 * z))
        self.dec = nn.Sequential(nn.Linear(z, 64), nn.SiLU(), nn.Linear(64, 64))

    def forward(self, x):
        mu, lv = self.enc(x).chunk(2, 1)
        z = mu + torch.exp(0.5 * lv) * torch.randn_like(mu)
        return self.dec(z), mu, lv


def train(seed):
    torch.manual_seed(seed)
    x = torch.tensor(load_digits().data / 16).float()
    dl = DataLoader(TensorDataset(x), 64, shuffle=True, drop_last=True)
    m = VAE()
    opt = torch.optim.Adam(m.parameters(), 4e-3)
    step, first = 0, None
    for ep in range(14):
        for (b,) in dl:
            out, mu, lv = m(b)
            rec = F.binary_cross_entropy_with_logits(out, b, reduction="sum") / len(b)
            kl = -0.5 * (1 + lv - mu.pow(2) - lv.exp()).sum(1).mean()
            beta = min(1.0, step / 250)
            loss = rec + beta * kl
            opt.zero_grad(); loss.backward(); opt.step()
            first = first or rec.item()
            step += 1
    return {"first_rec": first, "rec": rec.item(), "kl": kl.item()}
