import torch
from torch import nn

META = dict(title="Iterative magnitude pruning: weights and gradients masked to zero")


def train(seed):
    torch.manual_seed(seed)
    n = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    o = torch.optim.Adam(n.parameters(), 3e-3)
    w = torch.randn(16, 4)
    ms = {}
    for k in range(300):
        if k in (100, 200):
            for m in n:
                if isinstance(m, nn.Linear):
                    ms[m] = m.weight.abs() > m.weight.abs().quantile(0.4 + 0.3 * (k > 150))
        x = torch.randn(48, 16)
        l = nn.functional.cross_entropy(n(x), (x @ w).argmax(1))
        o.zero_grad()
        l.backward()
        for m, v in ms.items():
            m.weight.grad.mul_(v)
        o.step()
        with torch.no_grad():
            for m, v in ms.items():
                m.weight.mul_(v)
    return {"l": l.item()}
