import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_digits

META = dict(
    title="Backbone frozen for a warm-up phase and never released (epochs counted from 0, callback waits for a later one)",
    source="off-by-n in unfreeze callbacks (fastai / Lightning BackboneFinetuning questions)",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["requires_grad False left over", "frozen parameters", "backbone never unfrozen", "parameters never updated", "layers never updated", "frozen backbone"],
    location="UnfreezeCallback.on_epoch_start: unfreeze_at=20 is beyond the 10 epochs of the run; body.* keeps requires_grad False",
    symptom="only the last layer learns on random features, body weights never change",
)


class UnfreezeCallback:
    def __init__(self, module, unfreeze_at):
        self.module, self.at = module, unfreeze_at
        module.requires_grad_(False)

    def on_epoch_start(self, epoch):
        if epoch == self.at:
            self.module.requires_grad_(True)


class Learner:
    def __init__(self, body, head, dl, cbs):
        self.model = nn.Sequential(body, head)
        self.dl, self.cbs = dl, cbs
        self.opt = torch.optim.Adam(self.model.parameters(), lr=4e-3)

    def fit(self, epochs):
        for e in range(epochs):
            for cb in self.cbs:
                cb.on_epoch_start(e)
            self.model.train()
            for xb, yb in self.dl:
                self.opt.zero_grad()
                self.loss = F.cross_entropy(self.model(xb), yb)
                self.loss.backward()
                self.opt.step()


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    body = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10), nn.Tanh())
    head = nn.Linear(10, 10)
    dl = DataLoader(TensorDataset(x[:1300], y[:1300]), 32, shuffle=True)
    learn = Learner(body, head, dl, [UnfreezeCallback(body, 1 if fixed else 20)])
    learn.fit(10)
    with torch.no_grad():
        acc = (learn.model(x[1300:]).argmax(1) == y[1300:]).float().mean().item()
    return {"acc": acc}


def separates(buggy, fixed):
    return fixed["acc"] > 0.8 and buggy["acc"] < fixed["acc"] - 0.1
