import torch
from torch import nn

META = dict(title="Labels of -1 and 1 in a binary cross entropy", faults=["objective.target_range"], where="")


class SVMToLogistic:
    """A trainer that was written for a hinge loss and keeps its labels."""

    def __init__(self, fixed):
        self.net = nn.Sequential(nn.Linear(10, 16), nn.LeakyReLU(), nn.Linear(16, 1))
        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.02)
        self.fixed = fixed

    def batch(self):
        x = torch.randn(40, 10)
        y = torch.sign(x[:, 0] - x[:, 3])
        return x, ((y + 1) / 2 if self.fixed else y)

    def step(self):
        x, y = self.batch()
        loss = nn.functional.binary_cross_entropy_with_logits(self.net(x)[:, 0], y)
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        return loss.item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    trainer = SVMToLogistic(fixed)
    return {"loss": [trainer.step() for _ in range(200)][-1]}
