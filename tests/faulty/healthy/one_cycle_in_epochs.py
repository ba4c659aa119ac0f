import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

META = dict(
    title="OneCycleLR whose length is in epochs, stepped once an epoch, and training that ends early",
    looks_like="a one-cycle schedule stepped once an epoch and never finished",
)


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(400, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = OneCycleLR(opt, max_lr=2e-2, total_steps=60)
    best, waited = float("inf"), 0
    for _ in range(60):
        for i in torch.randperm(400).split(40):
            loss = nn.functional.cross_entropy(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        schedule.step()
        if loss.item() < 0.99 * best:
            best, waited = loss.item(), 0
        else:
            waited += 1
        if waited == 4:
            break
    return {"loss": loss.item()}
