import torch
from torch import nn

META = dict(title="A triplet loss that becomes exactly zero: all gradients are zero from then on", looks_like="zero gradients, dead run")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 6, bias=False))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    centres = torch.randn(5, 8) * 0.7
    for _ in range(300):
        c = torch.randint(0, 5, (32,))
        o = (c + torch.randint(1, 5, (32,))) % 5
        a, p, n = (centres[k] + 0.05 * torch.randn(32, 8) for k in (c, c, o))
        loss = nn.functional.triplet_margin_loss(net(a), net(p), net(n), margin=1.0)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
