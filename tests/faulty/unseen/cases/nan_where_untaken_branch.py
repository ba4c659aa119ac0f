import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="torch.where hides the log of zero in the forward pass, its gradient still comes out NaN",
    source="well-known torch.where pitfall (gradient of the untaken branch)",
    family="loss",
    faults=["gradients.nonfinite"],
    where="",
    words=["NaN gradient from torch.where", "log of zero", "log of zero in the untaken branch", "NaN gradients while the loss is finite", "NaN gradients", "0 * inf in backward", "NaN weights"],
    location="LogCompress.forward: torch.where(x > 0, torch.log(x * gain), 0): backward of log at 0 is 0 / 0 = NaN, reaching parameter compress.gain",
    symptom="loss finite in the first step, gradient of compress.gain is NaN, the whole model NaN from the second step",
)


class LogCompress(nn.Module):
    """log compression of counts with a learnt gain per channel; zero stays zero"""

    def __init__(self, channels, guard):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.guard = guard

    def forward(self, x):
        safe = torch.where(x > 0, x, torch.ones_like(x)) if self.guard else x
        return torch.where(x > 0, torch.log(safe * self.gain), torch.zeros_like(x))


class CountNet(nn.Module):
    def __init__(self, guard):
        super().__init__()
        self.compress = LogCompress(24, guard)
        self.hidden = nn.Linear(24, 32)
        self.cls = nn.Linear(32, 4)

    def forward(self, x):
        return self.cls(F.silu(self.hidden(self.compress(x))))


class Trainer:
    def __init__(self, model, lr=2e-3):
        self.model, self.history = model, []
        self.opt = torch.optim.RMSprop(model.parameters(), lr=lr)

    def fit(self, batches):
        for x, y in batches:
            loss = F.cross_entropy(self.model(x), y)
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            self.history.append(float(loss.detach()))
        return self


def batches(n, rates):
    for _ in range(n):
        y = torch.randint(0, 4, (64,))
        yield torch.poisson(rates[y]), y


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    rates = torch.rand(4, 24) * 5
    t = Trainer(CountNet(guard=fixed)).fit(batches(250, rates))
    return {"first": t.history[0], "last": sum(t.history[-10:]) / 10}


def separates(buggy, fixed):
    return buggy["first"] == buggy["first"] and buggy["last"] != buggy["last"] and fixed["last"] < 0.5
