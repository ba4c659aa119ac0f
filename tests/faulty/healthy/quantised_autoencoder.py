import torch
from torch import nn

META = dict(title="VQ-VAE: detach in the straight-through estimator, codes without a gradient in some steps", looks_like="detached graph, unused codes")


class VQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
        self.dec = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 10))
        self.codes = nn.Embedding(24, 3)

    def forward(self, x):
        z = self.enc(x)
        q = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        commit = (z - q.detach()).pow(2).mean() * 0.25 + (q - z.detach()).pow(2).mean()
        return self.dec(z + (q - z).detach()), commit


def train(seed):
    torch.manual_seed(seed)
    vq, mix = VQ(), torch.randn(2, 10)
    opt = torch.optim.Adam(vq.parameters(), lr=3e-3)
    for _ in range(300):
        x = torch.randn(64, 2) @ mix
        out, commit = vq(x)
        loss = nn.functional.mse_loss(out, x) + commit
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
