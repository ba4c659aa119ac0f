import torch
from torch import nn

META = dict(title="BPR / margin ranking with in-batch negatives, sparse adagrad")


def train(seed):
    torch.manual_seed(seed)
    u, i = nn.Embedding(80, 8, sparse=True), nn.Embedding(120, 8, sparse=True)
    o = torch.optim.Adagrad([*u.parameters(), *i.parameters()], lr=0.1)
    U, I = torch.randn(80, 3), torch.randn(120, 3)
    for k in range(300):
        a = torch.randint(0, 80, (64,))
        b, c = torch.randint(0, 120, (2, 64))
        s = ((U[a] * I[b]).sum(1) > (U[a] * I[c]).sum(1)).float() * 2 - 1
        l = nn.functional.margin_ranking_loss((u(a) * i(b)).sum(1), (u(a) * i(c)).sum(1), s, margin=0.5)
        o.zero_grad()
        l.backward()
        o.step()
    return {"l": l.item()}
