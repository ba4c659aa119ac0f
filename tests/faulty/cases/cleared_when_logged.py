import torch
from torch import nn

META = dict(title="zero_grad slipped into the if for logging", faults=["gradients.stale_gradients"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = nn.ModuleDict({"u": nn.Embedding(40, 8), "i": nn.Embedding(60, 8)})
    opt = torch.optim.Adagrad(m.parameters(), lr=0.05)
    R = torch.randn(40, 4) @ torch.randn(4, 60)
    for k in range(300):
        u, i = torch.randint(0, 40, (64,)), torch.randint(0, 60, (64,))
        loss = ((m["u"](u) * m["i"](i)).sum(1) - R[u, i]).pow(2).mean()
        if fixed or k % 10 == 0:
            opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
