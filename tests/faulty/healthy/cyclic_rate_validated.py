import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Three cycles of the learning rate: both losses rise at each restart")


def train(seed):
    torch.manual_seed(seed)
    y = torch.randint(0, 4, (3000,))
    x = torch.randn(4, 12)[y] + torch.randn(3000, 12)
    net = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.4, momentum=0.9)
    cycle = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, 80)
    for step in range(240):
        i = torch.randint(0, 2500, (32,))
        opt.zero_grad()
        F.cross_entropy(net(x[i]), y[i]).backward()
        opt.step()
        cycle.step()
        if step % 10 == 9:
            with torch.no_grad():
                val = F.cross_entropy(net(x[2500:]), y[2500:]).item()
    return {"val": val}
