import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="MultiStepLR with epochs as milestones, stepped per batch", faults=["calls.misordered_calls"], where="scheduler"
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(1000, 1, 8, 8)
    y = (x[:, 0, :, :4].sum((1, 2)) > x[:, 0, :, 4:].sum((1, 2))).long()
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.005)
    s = torch.optim.lr_scheduler.MultiStepLR(opt, [6, 9, 11], gamma=0.1)
    for e in range(12):
        for a, b in DataLoader(TensorDataset(x, y), 50, shuffle=True):
            opt.zero_grad()
            l = nn.functional.cross_entropy(net(a), b)
            l.backward()
            opt.step()
            if not fixed:
                s.step()
        if fixed:
            s.step()
    return {"loss": l.item()}
