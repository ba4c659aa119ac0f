import torch
from torch import nn

META = dict(title="WGAN-GP")


def train(seed):
    torch.manual_seed(seed)
    G = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 2))
    D = nn.Sequential(nn.Linear(2, 24), nn.SiLU(), nn.Linear(24, 1))
    og = torch.optim.Adam(G.parameters(), 1e-3, (0.0, 0.9))
    od = torch.optim.Adam(D.parameters(), 1e-3, (0.0, 0.9))
    for k in range(150):
        for _ in range(2):
            r = torch.randn(32, 2) * 0.3 + 1
            f = G(torch.randn(32, 3)).detach()
            e = torch.rand(32, 1)
            m = (e * r + (1 - e) * f).requires_grad_()
            g = torch.autograd.grad(D(m).sum(), m, create_graph=True)[0]
            l = D(f).mean() - D(r).mean() + 10 * ((g.norm(dim=1) - 1) ** 2).mean()
            od.zero_grad()
            l.backward()
            od.step()
        lg = -D(G(torch.randn(32, 3))).mean()
        og.zero_grad()
        lg.backward()
        og.step()
    return {"l": l.item()}
