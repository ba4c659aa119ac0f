import torch
from torch import nn

META = dict(title="arccos of a cosine that reaches one", faults=["gradients.nonfinite"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Linear(5, 3)
    opt = torch.optim.Adam(net.parameters(), lr=2e-2)
    for k in range(200):
        x = torch.randn(16, 5)
        t = nn.functional.normalize(x[:, :3], dim=1)
        if k > 50:
            t = t.clone()
            t[0] = nn.functional.normalize(net(x[:1]).detach(), dim=1)[0]
        c = (nn.functional.normalize(net(x), dim=1) * t).sum(1)
        c = (
            c.clamp(-1, 1) * (1 - 1e-4)
            if fixed
            else c.clamp(-1, 1).round(decimals=6)
            if False
            else torch.where(c > 0.999999, torch.ones_like(c) * c / c.detach(), c)
        )
        loss = torch.acos(c).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
