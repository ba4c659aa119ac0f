import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="Siamese network: one refactoring left torch.no_grad around the shared encoder",
    source="common slip after feature caching",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["torch.no_grad in the training forward pass", "encoder receives no gradient", "detached graph", "parameters without gradient", "frozen encoder", "parameters never updated"],
    location="Siamese.embed: torch.no_grad() around self.encoder; encoder (GRU + embedding) has grad None although it is in the optimizer",
    symptom="only the small comparison head learns; accuracy far below the working version",
)


class Siamese(nn.Module):
    def __init__(self, trainable):
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.encoder = nn.LSTM(8, 24, batch_first=True)
        self.head = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2))
        self.trainable = trainable

    def embed(self, s):
        with torch.set_grad_enabled(self.trainable and torch.is_grad_enabled()):
            _, (h, _) = self.encoder(self.embedding(s))
        return h[-1]

    def forward(self, a, b):
        return self.head((self.embed(a) - self.embed(b)).abs())


def pairs(n):
    a = torch.randint(0, 10, (n, 3))
    b = torch.randint(0, 10, (n, 3))
    same = torch.rand(n) < 0.5
    b[:, 1] = torch.where(same, a[:, 1], b[:, 1])
    return a, b, (a[:, 1] == b[:, 1]).long()


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    model = Siamese(trainable=fixed)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(400):
        a, b, t = pairs(96)
        loss = F.cross_entropy(model(a, b), t)
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        a, b, t = pairs(1000)
        acc = (model(a, b).argmax(1) == t).float().mean().item()
    return {"acc": acc, "loss": loss.item()}


def separates(buggy, fixed):
    return fixed["acc"] > 0.9 and buggy["acc"] < fixed["acc"] - 0.1
