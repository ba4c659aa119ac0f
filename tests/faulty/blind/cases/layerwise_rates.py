import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.frozen_parameters"],
    title="Layer-wise rates computed with integer division",
    words=["learning rate zero for a group", "parameter group with zero learning rate", "encoder never updated", "layers do not move"],
    where="",
    shows="encoder gradients exist but its weights are the initial ones; only the head learns",
)


class Net(nn.Module):
    def __init__(self, n=2):
        super().__init__()
        self.embed = nn.Embedding(30, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16 if i == 0 else 48, 48), nn.Tanh()) for i in range(n))
        self.head = nn.Linear(48, 30)

    def forward(self, ab):
        h = self.embed(ab).flatten(1)
        for b in self.blocks:
            h = b(h)
        return self.head(h)


def param_groups(model, base, floor):
    n = len(model.blocks) + 1
    groups = [{"params": model.embed.parameters(), "lr": base}]
    for i, b in enumerate(model.blocks, 1):
        scale = i // n if floor else i / n
        groups.append({"params": b.parameters(), "lr": base * scale})
    groups.append({"params": model.head.parameters(), "lr": base})
    return groups


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Net()
    opt = torch.optim.Adam(param_groups(model, 2e-2, floor=not fixed), lr=2e-2)
    for step in range(400):
        ab = torch.randint(0, 30, (128, 2))
        y = (ab[:, 0] * 2 + ab[:, 1]) % 30 // 5
        loss = F.cross_entropy(model(ab), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    ab = torch.randint(0, 30, (1000, 2))
    acc = (model(ab).argmax(1) == (ab[:, 0] * 2 + ab[:, 1]) % 30 // 5).float().mean()
    return {"loss": loss.item(), "acc": acc.item()}
