import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="Adam with lr 0.5 on a two-layer transformer: every update is larger than the weights",
    source="lr of an SGD recipe reused for Adam",
    family="optimizer",
    faults=["updates.update_scale"],
    where="",
    words=["learning rate too high", "updates too large relative to the weights", "update to weight ratio too large", "training diverges", "loss divergence", "not learning", "exploding loss", "huge first updates"],
    location="torch.optim.Adam(lr=0.5)",
    symptom="loss jumps from ln(12) to tens or hundreds after the first steps and never returns to the starting level's neighbourhood below",
)


class Tiny(nn.Module):
    def __init__(self, v=12, t=10, d=24):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        self.pos = nn.Embedding(t, d)
        enc = nn.TransformerEncoderLayer(d, 3, 48, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(enc, 2, enable_nested_tensor=False)
        self.out = nn.Linear(d, v)

    def forward(self, x):
        return self.out(self.blocks(self.emb(x) + self.pos.weight))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    model = Tiny()
    opt = torch.optim.Adam(model.parameters(), lr=0.003 if fixed else 0.5)
    log = []
    for step in range(250):
        x = torch.randint(0, 12, (32, 10))
        y = x.roll(1, 1)
        loss = F.cross_entropy(model(x).reshape(-1, 12), y.reshape(-1))
        opt.zero_grad()
        loss.backward()
        opt.step()
        log.append(loss.item())
    return {"first": log[0], "last": sum(log[-10:]) / 10}


def separates(buggy, fixed):
    return fixed["last"] < 0.5 and not buggy["last"] < 2.0
