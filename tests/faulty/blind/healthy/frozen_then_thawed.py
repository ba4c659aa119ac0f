import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(title="Pretrained trunk frozen on purpose, kept in eval, only the head trained",
            looks_like="most parameters have no gradient and do not move; a submodule is in eval mode while training", family="healthy")


class Net(nn.Module):
    def __init__(self, n_out):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU())
        self.head = nn.Linear(48, n_out)

    def train(self, mode=True):
        super().train(mode)
        if getattr(self, "frozen", False):
            self.trunk.eval()
        return self

    def forward(self, x):
        return self.head(self.trunk(x))


def loop(net, x, y, params, steps):
    opt = torch.optim.AdamW(params, lr=5e-3)
    net.train()
    log = []
    for _ in range(steps):
        i = torch.randint(0, len(x), (48,))
        loss = F.cross_entropy(net(x[i]), y[i])
        opt.zero_grad(); loss.backward(); opt.step()
        log.append(loss.item())
    return log


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16).float(), torch.tensor(d.target)
    p = torch.randperm(1797)
    x, y = x[p], y[p]
    net = Net(10)
    loop(net, x[:900], y[:900], net.parameters(), 150)
    net.head = nn.Linear(48, 5)
    net.trunk.requires_grad_(False)
    net.frozen = True
    xb, yb = x[900:], y[900:] % 5
    log = loop(net, xb[:650], yb[:650], net.head.parameters(), 200)
    net.eval()
    return {"first": log[0], "last": sum(log[-20:]) / 20, "acc": (net(xb[650:]).argmax(1) == yb[650:]).float().mean().item()}
