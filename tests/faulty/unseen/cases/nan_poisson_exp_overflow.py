import torch
from torch import nn
from dataclasses import dataclass

META = dict(
    title="Poisson regression on raw, unscaled features: exp of the linear predictor overflows",
    source="common pitfall: exp link on unscaled features; from memory",
    family="loss",
    faults=["gradients.nonfinite"],
    where="",
    words=["exp overflow", "overflow in exp", "inf loss", "NaN or inf loss", "unscaled input features", "inputs not normalised", "exploding loss"],
    location="PoissonNet: torch.exp(eta) where eta is in the hundreds because 'year' and 'income' enter unscaled",
    symptom="loss inf in the very first step, NaN gradients, NaN weights",
)


@dataclass
class Config:
    steps: int = 300
    lr: float = 1e-2
    batch: int = 64
    n: int = 2000


def claims(cfg):
    age = torch.rand(cfg.n) * 60 + 18
    year = torch.randint(1990, 2024, (cfg.n,)).float()
    income = torch.rand(cfg.n) * 90_000 + 10_000
    rate = torch.exp(0.5 + 0.02 * (age - 48) - 0.01 * (year - 2007) + 0.5 * (income - 55_000) / 45_000)
    return torch.stack([age, year, income], 1), torch.poisson(rate)


class PoissonNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(3, 1)
        nn.init.constant_(self.lin.weight, 0.05)
        nn.init.zeros_(self.lin.bias)

    def forward(self, x):
        return torch.exp(self.lin(x)).squeeze(1)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    cfg = Config()
    X, y = claims(cfg)
    if fixed:
        X = (X - X.mean(0)) / X.std(0)
    net = PoissonNet()
    opt = torch.optim.Adam(net.parameters(), lr=cfg.lr)
    trace = []
    for step in range(cfg.steps):
        idx = torch.randint(0, cfg.n, (cfg.batch,))
        mu = net(X[idx])
        nll = (mu - y[idx] * torch.log(mu + 1e-8)).mean()
        opt.zero_grad()
        nll.backward()
        opt.step()
        trace.append(nll.item())
    return {"nll_first": trace[0], "nll": sum(trace[-30:]) / 30}


def separates(buggy, fixed):
    return not abs(buggy["nll"]) < 1e6 and fixed["nll"] < fixed["nll_first"] - 0.05
