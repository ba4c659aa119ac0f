import torch, copy
from torch import nn

META = dict(title="DDPG with two target nets, detach instead of no_grad")


def train(seed):
    torch.manual_seed(seed)
    a = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 1), nn.Tanh())
    c = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 1))
    ta, tc = copy.deepcopy(a), copy.deepcopy(c)
    oa, oc = torch.optim.Adam(a.parameters(), 1e-3), torch.optim.Adam(c.parameters(), 2e-3)
    for k in range(300):
        s = torch.randn(32, 3)
        u = (a(s) + 0.1 * torch.randn(32, 1)).detach()
        s2 = 0.9 * s + 0.2 * u
        r = -(s2**2).sum(1, keepdim=True)
        y = (r + 0.95 * tc(torch.cat([s2, ta(s2)], 1))).detach()
        lc = nn.functional.mse_loss(c(torch.cat([s, u], 1)), y)
        oc.zero_grad()
        lc.backward()
        oc.step()
        la = -c(torch.cat([s, a(s)], 1)).mean()
        oa.zero_grad()
        la.backward()
        oa.step()
        for t, n in ((ta, a), (tc, c)):
            for p, q in zip(t.parameters(), n.parameters()):
                p.data.lerp_(q.data, 0.01)
    return {"l": lc.item()}
