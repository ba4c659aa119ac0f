import torch
from torch import nn

META = dict(title="Blocks kept in a list of tuples (norm, layer)", faults=["updates.frozen_parameters"], where="layers")


class N(nn.Module):
    def __init__(s, ok):
        super().__init__()
        s.inp = nn.Linear(12, 16)
        ls = [(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(3)]
        s.layers = nn.ModuleList(nn.ModuleList(p) for p in ls) if ok else ls
        s.out = nn.Linear(16, 3)

    def forward(s, x):
        x = s.inp(x)
        for n, l in s.layers:
            x = x + torch.relu(l(n(x)))
        return s.out(x)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    n = N(fixed)
    o = torch.optim.AdamW(n.parameters(), 3e-3)
    w = torch.randn(12, 3)
    for _ in range(150):
        x = torch.randn(32, 12)
        l = nn.functional.cross_entropy(n(x), (x.abs() @ w).argmax(1))
        o.zero_grad()
        l.backward()
        o.step()
        n.zero_grad()
    return {"l": l.item()}
