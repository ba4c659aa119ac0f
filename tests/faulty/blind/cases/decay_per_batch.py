from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["calls.misordered_calls"],
    title="Epoch schedule stepped for each batch",
    words=["scheduler stepped per batch instead of per epoch", "learning rate decays too fast", "scheduler.step in the batch loop", "learning rate vanishes"],
    where="",
    shows="rate is at 1e-6 of its start after the first epoch, loss freezes",
)


@dataclass
class Args:
    lr: float = 0.03
    gamma: float = 0.8
    epochs: int = 7
    bs: int = 32


class Runner:
    def __init__(self, args, per_batch):
        self.a, self.per_batch = args, per_batch
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.opt = torch.optim.SGD(self.net.parameters(), lr=args.lr, momentum=0.9)
        self.sched = torch.optim.lr_scheduler.ExponentialLR(self.opt, args.gamma)

    def epoch(self, dl):
        total = 0.0
        for x, y in dl:
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            total += loss.item()
            if self.per_batch:
                self.sched.step()
        if not self.per_batch:
            self.sched.step()
        return total / len(dl)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    a = Args()
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    r = Runner(a, per_batch=not fixed)
    dl = DataLoader(TensorDataset(x[:1400], y[:1400]), a.bs, shuffle=True)
    hist = [r.epoch(dl) for _ in range(a.epochs)]
    with torch.no_grad():
        acc = (r.net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"first": hist[0], "last": hist[-1], "acc": acc, "lr": r.opt.param_groups[0]["lr"]}
