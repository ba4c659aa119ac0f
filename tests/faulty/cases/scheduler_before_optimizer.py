import warnings

import torch
from torch import nn

META = dict(
    title="The scheduler steps at the top of each epoch, before the optimizer",
    faults=["calls.misordered_calls"],
    where="scheduler",
    style="bare loop, StepLR by epoch",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(300, 5)
    y = x @ torch.randn(5, 1) + 0.1 * torch.randn(300, 1)
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    sched = torch.optim.lr_scheduler.StepLR(opt, step_size=3, gamma=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(10):
            if not fixed:
                sched.step()
            for i in range(0, 300, 30):
                loss = nn.functional.mse_loss(net(x[i : i + 30]), y[i : i + 30])
                opt.zero_grad()
                loss.backward()
                opt.step()
            if fixed:
                sched.step()
    return {"loss": loss.item()}
