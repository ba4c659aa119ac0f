import torch
from torch import nn

META = dict(title="OneCycleLR stepped per batch, as it is meant", looks_like="scheduler per batch, lr near zero at the end")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(800, 16)
    y = (x @ torch.randn(16, 5)).argmax(1)
    net = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.4, total_steps=240)
    for step in range(240):
        i = torch.randint(0, 800, (50,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    return {"loss": loss.item()}
