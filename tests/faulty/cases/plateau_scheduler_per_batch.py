import torch
from torch import nn

META = dict(title="ReduceLROnPlateau watches every noisy batch and takes the rate to nothing", faults=["calls.misordered_calls"], where="scheduler", style="epochs by hand")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(1000, 10)
    y = (x @ torch.randn(10, 4) + 0.5 * torch.randn(1000, 4)).argmax(1)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.02)
    sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.1, patience=3)
    for epoch in range(12):
        order, total = torch.randperm(1000), 0.0
        for i in order.split(50):
            loss = nn.functional.cross_entropy(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
            if not fixed:
                sched.step(loss.item())
        if fixed:
            sched.step(total / 20)
    return {"loss": total / 20}
