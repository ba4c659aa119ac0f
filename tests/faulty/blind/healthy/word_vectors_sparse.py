import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Sparse embedding tables under SparseAdam, dense part under Adam",
            looks_like="two optimizers, most rows of the tables do not move in a step, sparse gradients", family="healthy")


class Rec(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.u = nn.Embedding(n, 16, sparse=True)
        self.v = nn.Embedding(m, 16, sparse=True)
        self.mix = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        for e in (self.u, self.v):
            nn.init.normal_(e.weight, std=0.3)

    def forward(self, i, j):
        p = self.u(i) * self.v(j)
        return p.sum(1) + self.mix(p)[:, 0]


def train(seed):
    torch.manual_seed(seed)
    a, b = torch.randn(150, 2), torch.randn(60, 2)
    m = Rec(150, 60)
    o1 = torch.optim.SparseAdam(list(m.u.parameters()) + list(m.v.parameters()), lr=1e-2)
    o2 = torch.optim.Adam(m.mix.parameters(), lr=3e-3)
    h = []
    for it in range(400):
        i, j = torch.randint(0, 150, (256,)), torch.randint(0, 60, (256,))
        loss = F.binary_cross_entropy_with_logits(m(i, j), ((a[i] * b[j]).sum(1) > 0).float())
        o1.zero_grad(); o2.zero_grad()
        loss.backward()
        o1.step(); o2.step()
        h.append(loss.item())
    return {"first": h[0], "last": sum(h[-20:]) / 20}
