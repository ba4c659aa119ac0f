import torch
from torch import nn

META = dict(title="A warm-up lambda without an end: the learning rate grows by a tenth each step", faults=["losses.loss_divergence", "gradients.explosion", "updates.update_scale", "losses.loss_spike", "gradients.nonfinite"], where="", style="LambdaLR")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.002)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.1**s, 20.0) if fixed else 1.1**s)
    w = torch.randn(6, 1)
    for step in range(150):
        x = torch.randn(48, 6)
        loss = nn.functional.mse_loss(net(x), x @ w + 1)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    return {"loss": loss.item()}
