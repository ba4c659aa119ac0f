import torch
from sklearn.datasets import load_digits
from torch import nn

META = dict(
    faults=["batches.sorted_labels"],
    title="Batch-norm classifier fed with groups of one class each",
    words=["batch norm with batches of one class", "batch statistics wrong", "batch normalisation misuse", "samples of a batch sorted by class"],
    where="",
    shows="batch norm subtracts the class itself; training loss near log(10), evaluation worse than chance",
)


def groups(y, bs, mixed):
    if mixed:
        yield from torch.randperm(len(y)).split(bs)
        return
    out = []
    for c in range(10):
        idx = (y == c).nonzero()[:, 0]
        out += list(idx[torch.randperm(len(idx))].split(bs))
    for k in torch.randperm(len(out)).tolist():
        yield out[k]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    xt, yt, xv, yv = x[:1400], y[:1400], x[1400:], y[1400:]
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for ep in range(8):
        net.train()
        tot = 0
        for i in groups(yt, 35, fixed):
            if len(i) < 2:
                continue
            loss = nn.functional.cross_entropy(net(xt[i]), yt[i])
            opt.zero_grad(); loss.backward(); opt.step()
            tot += loss.item() * len(i) / 1400
    net.eval()
    with torch.no_grad():
        o = net(xv)
    return {"train_loss": tot, "val_loss": nn.functional.cross_entropy(o, yv).item(), "val_acc": (o.argmax(1) == yv).float().mean().item()}
