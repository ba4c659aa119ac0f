import torch
from torch import nn

META = dict(title="Two tasks one after the other: the loss begins high again, and the old task is validated on")


def train(seed):
    torch.manual_seed(seed)
    tasks = []
    for _ in range(2):
        y = torch.randint(0, 4, (300,))
        tasks.append((torch.randn(4, 12)[y] + 0.8 * torch.randn(300, 12), y))
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 4))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for x, y in tasks:
        for step in range(120):
            i = torch.randint(0, 250, (25,))
            loss = nn.functional.cross_entropy(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 15 == 14:
                with torch.no_grad():
                    seen = [nn.functional.cross_entropy(net(a[250:]), b[250:]).item() for a, b in tasks]
    return {"val": seen[-1]}
