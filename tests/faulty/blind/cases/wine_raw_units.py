import torch
from sklearn.datasets import load_wine
from torch import nn

META = dict(
    faults=["activations.saturation"],
    title="Tanh network on the wine table in raw units",
    words=["saturated tanh", "inputs not normalised", "saturation", "inputs unscaled"],
    where="",
    shows="tanh outputs pinned at +-1, first-layer gradients almost zero",
)


def prepare(scale):
    d = load_wine()
    x = torch.tensor(d.data).float()
    if scale:
        x = (x - x.mean(0)) / x.std(0)
    return x, torch.tensor(d.target)


def build():
    return nn.Sequential(nn.Linear(13, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x, y = prepare(fixed)
    p = torch.randperm(len(x))
    tr, va = p[:130], p[130:]
    net = build()
    sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for ep in range(30):
        for b in tr[torch.randperm(130)].split(26):
            l = nn.functional.cross_entropy(net(x[b]), y[b])
            sgd.zero_grad(); l.backward(); sgd.step()
            losses.append(l.item())
    with torch.no_grad():
        acc = (net(x[va]).argmax(-1) == y[va]).float().mean().item()
    return {"first": losses[0], "last": sum(losses[-10:]) / 10, "val_acc": acc}
