import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Adversarial autoencoder: the encoder is in two optimizers, each with a loss and a backward of its own",
    looks_like="parameters in two optimizers",
)


def train(seed):
    torch.manual_seed(seed)
    enc = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    dec = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 16))
    disc = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    recon = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=2e-3)
    regular = torch.optim.Adam(enc.parameters(), lr=3e-4)
    critic = torch.optim.Adam(disc.parameters(), lr=1e-3)
    basis = torch.randn(2, 16)
    for _ in range(200):
        x = torch.randn(64, 2) @ basis + 0.1 * torch.randn(64, 16)
        recon.zero_grad()
        loss = F.mse_loss(dec(enc(x)), x)
        loss.backward()
        recon.step()
        critic.zero_grad()
        fake = enc(x).detach()
        d = F.binary_cross_entropy_with_logits(disc(torch.randn(64, 2)), torch.ones(64, 1))
        d = d + F.binary_cross_entropy_with_logits(disc(fake), torch.zeros(64, 1))
        d.backward()
        critic.step()
        regular.zero_grad()
        g = F.binary_cross_entropy_with_logits(disc(enc(x)), torch.ones(64, 1))
        g.backward()
        regular.step()
    return {"loss": loss.item()}
