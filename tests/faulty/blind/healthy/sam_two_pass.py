import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(title="Sharpness-aware minimisation: two backward passes, weights moved up and back",
            looks_like="weights changed by hand between backward and step, loss goes up inside a step", family="healthy")


class SAM:
    def __init__(self, params, base, rho):
        self.params, self.base, self.rho = list(params), base, rho

    @torch.no_grad()
    def climb(self):
        n = torch.stack([p.grad.norm() for p in self.params]).norm() + 1e-12
        self.e = [p.grad * (self.rho / n) for p in self.params]
        for p, e in zip(self.params, self.e):
            p.add_(e)
        self.base.zero_grad()

    @torch.no_grad()
    def descend(self):
        for p, e in zip(self.params, self.e):
            p.sub_(e)
        self.base.step()
        self.base.zero_grad()


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    m = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    sam = SAM(m.parameters(), torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9), rho=0.05)
    for it in range(200):
        i = torch.randint(0, 1400, (64,))
        loss = F.cross_entropy(m(x[i]), y[i])
        loss.backward()
        sam.climb()
        F.cross_entropy(m(x[i]), y[i]).backward()
        sam.descend()
    with torch.no_grad():
        return {"loss": loss.item(), "acc": (m(x[1400:]).argmax(1) == y[1400:]).float().mean().item()}
