from dataclasses import dataclass
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_breast_cancer

META = dict(title="OneCycleLR from lr / 25 to a high peak down to lr / 1e4",
            looks_like="learning rate rises fast, loss bumps at the peak, last updates are almost nothing", family="healthy")


@dataclass
class Args:
    epochs: int = 12
    bs: int = 30
    max_lr: float = 0.3


class Trainer:
    def __init__(self, args, model, ds):
        self.args, self.model = args, model
        self.loader = DataLoader(ds, args.bs, shuffle=True, drop_last=True)
        self.optim = torch.optim.SGD(model.parameters(), lr=args.max_lr / 25, momentum=0.9)
        self.sched = torch.optim.lr_scheduler.OneCycleLR(self.optim, args.max_lr, epochs=args.epochs, steps_per_epoch=len(self.loader))
        self.criterion = nn.BCEWithLogitsLoss()

    def run(self):
        for _ in range(self.args.epochs):
            self.model.train()
            for x, y in self.loader:
                self.optim.zero_grad()
                self.criterion(self.model(x).flatten(), y).backward()
                self.optim.step()
                self.sched.step()
        return self.sched.get_last_lr()[0]


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    X, y = load_breast_cancer(return_X_y=True)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    y = torch.tensor(y, dtype=torch.float32)
    p = torch.randperm(569)
    model = nn.Sequential(nn.Linear(30, 32), nn.Tanh(), nn.Linear(32, 1))
    lr = Trainer(Args(), model, TensorDataset(X[p[:450]], y[p[:450]])).run()
    with torch.no_grad():
        out = model(X[p[450:]]).flatten()
    return {"acc": ((out > 0).float() == y[p[450:]]).float().mean().item(), "last_lr": lr}


def healthy(m):
    return m["acc"] > 0.93 and m["last_lr"] < 1e-4
