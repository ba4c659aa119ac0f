import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="Fine-tuning with a frozen bottom, a body at lr 1e-4 and a new head at lr 1e-2 (discriminative learning rates)",
            looks_like="bottom has no gradient and never changes, body updates a hundred times smaller than the head's", family="healthy")


def block(i, o):
    return nn.Sequential(nn.Linear(i, o), nn.LayerNorm(o), nn.GELU())


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    bottom, body = block(64, 48), block(48, 48)
    old = nn.Linear(48, 2)
    pre = torch.optim.Adam([*bottom.parameters(), *body.parameters(), *old.parameters()], lr=3e-3)
    for _ in range(120):
        i = torch.randint(0, 700, (64,))
        loss = F.cross_entropy(old(body(bottom(x[i]))), (y[i] > 4).long())
        pre.zero_grad()
        loss.backward()
        pre.step()
    for p in bottom.parameters():
        p.requires_grad = False
    head = nn.Linear(48, 10)
    model = nn.Sequential(bottom, body, head)
    opt = torch.optim.Adam([{"params": bottom.parameters(), "lr": 0.0}, {"params": body.parameters(), "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-2}])
    for _ in range(250):
        i = torch.randint(700, 1400, (64,))
        loss = F.cross_entropy(model(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        acc = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.8
