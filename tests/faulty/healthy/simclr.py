import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="NT-Xent, temperature .1, projector, LARS-ish big lr with warm-up")


def train(seed):
    torch.manual_seed(seed)
    f = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
    o = torch.optim.SGD(f.parameters(), lr=1.0, momentum=0.9)
    s = torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1, k / 50))
    for k in range(200):
        x = torch.randn(48, 16) * 2
        z = F.normalize(torch.cat([f(x + 0.4 * torch.randn_like(x)), f(x + 0.4 * torch.randn_like(x))]), dim=1)
        m = z @ z.T / 0.1
        m.fill_diagonal_(-9e9)
        l = F.cross_entropy(m, torch.arange(96).roll(48))
        o.zero_grad()
        l.backward()
        o.step()
        s.step()
    return {"l": l.item()}
