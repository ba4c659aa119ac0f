import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["batches.same_batch"],
    title="Step-based trainer that asks a fresh iterator for its first batch at each step",
    words=["same batch every step", "next(iter(loader)) in the loop", "only the first batch is seen", "one batch repeated"],
    where="",
    shows="training loss falls to zero, validation far behind",
)


class Trainer:
    def __init__(self, net, data, fresh):
        self.net = net
        self.loader = DataLoader(data, batch_size=32, shuffle=False)
        self.fresh = fresh
        self.it = iter(self.loader)
        self.opt = torch.optim.Adam(net.parameters(), lr=2e-3)

    def next_batch(self):
        if self.fresh:
            return next(iter(self.loader))
        try:
            return next(self.it)
        except StopIteration:
            self.it = iter(self.loader)
            return next(self.it)

    def run(self, steps):
        log = []
        for _ in range(steps):
            x, y = self.next_batch()
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            log.append(loss.item())
        return log


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(len(d.target))
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    net = nn.Sequential(nn.Linear(64, 80), nn.LeakyReLU(), nn.Linear(80, 10))
    log = Trainer(net, TensorDataset(x[:1400], y[:1400]), fresh=not fixed).run(264)
    with torch.no_grad():
        out = net(x[1400:])
    return {"train_loss": sum(log[-20:]) / 20, "val_loss": nn.functional.cross_entropy(out, y[1400:]).item(),
            "val_acc": (out.argmax(1) == y[1400:]).float().mean().item()}
