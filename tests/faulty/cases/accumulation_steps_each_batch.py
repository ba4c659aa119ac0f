import torch
from torch import nn

META = dict(title="Accumulation over four batches, but the step is outside the if", faults=["gradients.stale_gradients"], where="", style="accumulation, Trainer method")


class Fitter:
    accumulate = 4

    def __init__(self, fixed):
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        self.opt = torch.optim.SGD(self.net.parameters(), lr=0.05)
        self.fixed = fixed

    def batch(self, k, x, y):
        loss = nn.functional.mse_loss(self.net(x), y) / self.accumulate
        loss.backward()
        if (k + 1) % self.accumulate == 0 or not self.fixed:
            self.opt.step()
        if (k + 1) % self.accumulate == 0:
            self.opt.zero_grad()
        return loss


def train(seed, fixed=False):
    torch.manual_seed(seed)
    fitter, w = Fitter(fixed), torch.randn(8, 1)
    for k in range(400):
        x = torch.randn(16, 8)
        loss = fitter.batch(k, x, torch.tanh(x @ w))
    return {"loss": loss.item()}
