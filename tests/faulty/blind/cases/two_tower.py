import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.frozen_parameters"],
    title="Two-tower retrieval where the item vectors come out of a cached, cut path",
    words=["detached branch", "gradient cut off", "detach on the item tower", "item tower receives no gradient"],
    where="",
    shows="item tower parameters have no gradient; retrieval stays poor",
)


class Tower(nn.Module):
    def __init__(self, n, d=16, out=4):
        super().__init__()
        self.table = nn.Embedding(n, d)
        self.proj = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, out))

    def encode(self, ids, cut=False):
        v = self.proj(self.table(ids))
        if cut:
            v = v.data
        return F.normalize(v, dim=-1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    n = 300
    partner = torch.randint(0, 40, (n,))
    users, items = Tower(n), Tower(40)
    opt = torch.optim.Adam(list(users.parameters()) + list(items.parameters()), lr=5e-3)
    for step in range(300):
        u = torch.randint(0, n, (64,))
        uv = users.encode(u)
        iv = items.encode(torch.arange(40), cut=not fixed)
        loss = F.cross_entropy(uv @ iv.T / 0.1, partner[u])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        hit = (users.encode(torch.arange(n)) @ items.encode(torch.arange(40)).T).argmax(1) == partner
    return {"loss": loss.item(), "hit": hit.float().mean().item()}
