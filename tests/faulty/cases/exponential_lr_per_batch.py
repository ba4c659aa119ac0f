import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="ExponentialLR with an epoch's gamma is stepped after every batch",
    faults=["calls.misordered_calls"],
    where="scheduler",
    style="DataLoader, convolution",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(600, 1, 8, 8)
    y = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.8)
    for _ in range(8):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            opt.step()
            if not fixed:
                sched.step()
        if fixed:
            sched.step()
    return {"loss": loss.item()}
