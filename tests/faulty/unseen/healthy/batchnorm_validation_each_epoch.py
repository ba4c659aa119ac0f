import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="BatchNorm conv net, validated in eval mode each epoch, best weights kept, running statistics re-estimated at the end (update_bn)",
            looks_like="mode switches every epoch, forward passes in train mode under no_grad", family="healthy")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
                               nn.Conv2d(12, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.out = nn.Linear(96, 10)

    def forward(self, x):
        return self.out(self.f(x))


def validate(net, loader):
    net.eval()
    hit = tot = 0
    with torch.no_grad():
        for x, y in loader:
            hit += (net(x).argmax(1) == y).sum().item()
            tot += len(y)
    return hit / tot


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.images / 16, dtype=torch.float32)[:, None], torch.tensor(d.target)
    tr = DataLoader(TensorDataset(x[:1200], y[:1200]), 60, shuffle=True)
    va = DataLoader(TensorDataset(x[1200:1500], y[1200:1500]), 100)
    net, best, state = Net(), 0.0, None
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for epoch in range(5):
        net.train()
        for xb, yb in tr:
            opt.zero_grad()
            F.cross_entropy(net(xb), yb).backward()
            opt.step()
        acc = validate(net, va)
        if acc > best:
            best, state = acc, {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    torch.optim.swa_utils.update_bn(tr, net)
    return {"best_val": best, "test": validate(net, DataLoader(TensorDataset(x[1500:], y[1500:]), 297))}


def healthy(m):
    return m["test"] > 0.88
