import torch
from torch import nn

META = dict(title="Snapshot ensemble: cyclic rate, the best weights reloaded, a new optimizer each cycle")


def train(seed):
    torch.manual_seed(seed)
    n = nn.Sequential(nn.Linear(10, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
    w = torch.randn(10, 3)
    best = None
    for c in range(4):
        o = torch.optim.SGD(n.parameters(), lr=0.5, momentum=0.9)
        s = torch.optim.lr_scheduler.CosineAnnealingLR(o, 60)
        for k in range(60):
            x = torch.randn(40, 10)
            l = nn.functional.cross_entropy(n(x), (x @ w).argmax(1))
            o.zero_grad()
            l.backward()
            o.step()
            s.step()
        if best is not None:
            n.load_state_dict(best)
        best = {k: v.clone() for k, v in n.state_dict().items()}
    return {"l": l.item()}
