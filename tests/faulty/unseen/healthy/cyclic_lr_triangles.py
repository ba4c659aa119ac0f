import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="CyclicLR, stepped per batch, swings between 0.001 and 0.5",
            looks_like="loss rises with every cycle, learning rate changes every step", family="healthy")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(256, 10)

    def forward(self, x):
        return self.fc(F.avg_pool2d(F.relu(self.bn(self.conv(x))), 2).flatten(1))


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.images / 16, dtype=torch.float32)[:, None], torch.tensor(d.target)
    net = Net().train()
    opt = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    sched = torch.optim.lr_scheduler.CyclicLR(opt, base_lr=0.001, max_lr=0.5, step_size_up=40, cycle_momentum=False)
    for step in range(320):
        i = torch.randint(0, 1400, (48,))
        opt.zero_grad()
        F.cross_entropy(net(x[i]), y[i]).backward()
        opt.step()
        sched.step()
    net.eval()
    with torch.no_grad():
        acc = (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.88
