import torch
from torch import nn

META = dict(title="A coupling flow: the negative log-likelihood passes zero and stays below", looks_like="negative losses")


class Coupling(nn.Module):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 2))

    def forward(self, x):
        a, b = x.flip(1).chunk(2, 1) if self.flip else x.chunk(2, 1)
        s, t = self.net(a).chunk(2, 1)
        s = torch.tanh(s) * 2
        return torch.cat([a, b * s.exp() + t], 1), s.sum(1)


def train(seed):
    torch.manual_seed(seed)
    flow = nn.ModuleList(Coupling(k % 2) for k in range(4))
    opt = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for _ in range(250):
        a = torch.randn(128, 1) * 0.3
        z = torch.cat([a, 0.2 * torch.sin(6 * a) + 0.03 * torch.randn(128, 1)], 1)
        log = 0.0
        for layer in flow:
            z, d = layer(z)
            log = log + d
        loss = (0.5 * z.pow(2).sum(1) - log).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"nll": loss.item()}
