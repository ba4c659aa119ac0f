import torch
from torch import nn

META = dict(
    title="eval() for logging inside the loop every 25 steps, train() only per epoch",
    faults=["calls.misordered_calls"],
    where="eval",
)


class T:
    def __init__(s):
        s.net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
        s.opt = torch.optim.Adam(s.net.parameters(), 1e-3)

    def log(s, x, y):
        s.net.eval()
        with torch.no_grad():
            return (s.net(x).argmax(1) == y).float().mean().item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    t = T()
    for epoch in range(4):
        t.net.train()
        for k in range(60):
            y = torch.randint(0, 3, (24,))
            x = torch.randn(24, 1, 8, 8) + y[:, None, None, None] * 0.3
            t.opt.zero_grad()
            loss = nn.functional.cross_entropy(t.net(x), y)
            loss.backward()
            t.opt.step()
            if k % 25 == 24:
                acc = t.log(x, y)
                if fixed:
                    t.net.train()
    return {"acc": acc}
