import torch
from torch import nn

META = dict(title="skip-gram with negative sampling, zero-initialised context table")


def train(seed):
    torch.manual_seed(seed)
    a = nn.Embedding(50, 16, sparse=True)
    b = nn.Embedding(50, 16, sparse=True)
    nn.init.zeros_(b.weight)
    nn.init.uniform_(a.weight, -0.03, 0.03)
    opt = torch.optim.SGD([*a.parameters(), *b.parameters()], lr=2.0)
    for k in range(400):
        c = torch.randint(0, 50, (64,))
        p = (c + torch.randint(-2, 3, (64,))) % 50
        n = torch.randint(0, 50, (64, 4))
        pos = (a(c) * b(p)).sum(1)
        neg = (a(c)[:, None] * b(n)).sum(2)
        loss = -(nn.functional.logsigmoid(pos) + nn.functional.logsigmoid(-neg).sum(1)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
