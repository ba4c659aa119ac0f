import torch
from torch import nn

META = dict(
    faults=["model.batch_mixing"],
    title="Multiple-instance regression with attention pooling, weights normalised across the bags",
    words=["softmax over the wrong axis", "softmax over the batch dimension", "attention weights normalised over the batch"],
    where="",
    shows="attention weights of one bag do not sum to one; loss stays high",
)


class AttnPool(nn.Module):
    def __init__(self, d, axis):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, 1))
        self.axis = axis

    def forward(self, h):
        a = torch.softmax(self.score(h).squeeze(-1), dim=self.axis)
        return torch.einsum("bn,bnd->bd", a, h)


class MIL(nn.Module):
    def __init__(self, axis):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32))
        self.pool = AttnPool(32, axis)
        self.reg = nn.Linear(32, 1)

    def forward(self, x):
        return self.reg(self.pool(self.enc(x))).squeeze(-1)


def bags(n):
    v = torch.randn(n, 6)
    k = torch.randint(0, 6, (n,))
    mark = -torch.ones(n, 6)
    mark[torch.arange(n), k] = 1.0
    return torch.stack([v, mark], -1), v[torch.arange(n), k]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = MIL(axis=1 if fixed else 0)
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    lossfn = nn.MSELoss()
    tail = []
    for it in range(350):
        x, y = bags(10)
        loss = lossfn(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        tail.append(loss.item())
    with torch.no_grad():
        x, y = bags(300)
        single = torch.cat([model(x[i:i + 1]) for i in range(300)])
    return {"first": tail[0], "last": sum(tail[-25:]) / 25, "one_at_a_time": lossfn(single, y).item()}
