import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

META = dict(title="Hinge GAN with spectral norm and one optimizer step for the discriminator after an accumulated pair", looks_like="flat losses")


def train(seed):
    torch.manual_seed(seed)
    g = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    d = nn.Sequential(spectral_norm(nn.Linear(2, 32)), nn.LeakyReLU(0.1), spectral_norm(nn.Linear(32, 1)))
    og, od = torch.optim.Adam(g.parameters(), 1e-3, betas=(0.0, 0.9)), torch.optim.Adam(d.parameters(), 2e-3, betas=(0.0, 0.9))
    for _ in range(200):
        real, z = torch.randn(32, 2) * 0.2 + 1, torch.randn(32, 4)
        od.zero_grad()
        torch.relu(1 - d(real)).mean().backward()
        torch.relu(1 + d(g(z).detach())).mean().backward()
        od.step()
        d.requires_grad_(False)
        loss = -d(g(z)).mean()
        og.zero_grad()
        loss.backward()
        og.step()
        d.requires_grad_(True)
    return {"loss": loss.item()}
