import torch
from torch import nn

META = dict(
    title="Warm-up counts epochs, stepping integer division gives lr 0 for the whole run",
    faults=["updates.update_scale", "losses.plateau", "updates.frozen_parameters"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1.0, s / 20) if fixed else float(s // 1000))
    w = torch.randn(10, 3)
    for _ in range(200):
        x = torch.randn(48, 10)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    return {"loss": loss.item()}
