import torch
from torch import nn

META = dict(
    title="Continual learning: tasks of two classes, one after the other, with a small memory of the old ones",
    looks_like="gradients that grow seventyfold at once, and losses with them; labels in order",
)


def train(seed):
    torch.manual_seed(seed)
    centres = 2 * torch.randn(6, 16)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 6))
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    for task in range(3):
        for _ in range(80):
            y = torch.randint(2 * task, 2 * task + 2, (32,))
            if task:
                y = torch.cat([y, torch.randint(0, 2 * task, (16,))])
            loss = nn.functional.cross_entropy(net(centres[y] + torch.randn(len(y), 16)), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
