import torch
from torch import nn

META = dict(title="Sparse autoencoder: L1 warm-up, most latents off")


def train(seed):
    torch.manual_seed(seed)
    D = torch.randn(40, 12)
    e, d = nn.Linear(12, 64), nn.Linear(64, 12)
    o = torch.optim.Adam([*e.parameters(), *d.parameters()], 2e-3)
    for k in range(300):
        x = (torch.rand(64, 40) < 0.05).float() @ D
        h = torch.relu(e(x))
        l = ((d(h) - x) ** 2).sum(1).mean() + 0.3 * min(1, k / 150) * h.sum(1).mean()
        o.zero_grad()
        l.backward()
        o.step()
    return {"l": l.item()}
