from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

META = dict(
    faults=["objective.double_softmax"],
    title="Digits MLP whose predict head normalises its outputs",
    words=["double softmax", "softmax before cross entropy", "cross entropy applied to probabilities"],
    where="",
    shows="loss stays above 1.46 and learning is slow; gradients are weak",
)


@dataclass
class Config:
    lr: float = 0.05
    epochs: int = 4
    batch: int = 64
    hidden: int = 64


class Net(nn.Module):
    def __init__(self, cfg, probs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, cfg.hidden), nn.ReLU(), nn.Linear(cfg.hidden, cfg.hidden), nn.ReLU())
        self.out = nn.Linear(cfg.hidden, 10)
        self.act = nn.Softmax(dim=-1) if probs else nn.Identity()

    def forward(self, x):
        return self.act(self.out(self.body(x)))


class Trainer:
    def __init__(self, model, cfg):
        self.model, self.cfg = model, cfg
        self.opt = torch.optim.SGD(model.parameters(), lr=cfg.lr, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()

    def fit(self, loader):
        self.model.train()
        for _ in range(self.cfg.epochs):
            for x, y in loader:
                self.opt.zero_grad()
                loss = self.criterion(self.model(x), y)
                loss.backward()
                self.opt.step()
        return loss.item()

    @torch.no_grad()
    def score(self, loader):
        self.model.eval()
        hit = sum((self.model(x).argmax(-1) == y).sum().item() for x, y in loader)
        return hit / len(loader.dataset)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    cfg = Config()
    d = load_digits()
    ds = TensorDataset(torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target))
    tr, va = random_split(ds, [1437, 360])
    t = Trainer(Net(cfg, probs=not fixed), cfg)
    last = t.fit(DataLoader(tr, cfg.batch, shuffle=True))
    return {"loss": last, "val_acc": t.score(DataLoader(va, 360))}
