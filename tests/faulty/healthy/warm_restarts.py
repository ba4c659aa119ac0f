import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Cosine with warm restarts by batch, cut to zero again and again", looks_like="lr at zero, loss bumps at restarts")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(800, 12)
    y = (x.abs() @ torch.randn(12, 4)).argmax(1)
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9, nesterov=True)
    sched = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=20, T_mult=2)
    for _ in range(14):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=40, shuffle=True):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(xb), yb)
            loss.backward()
            opt.step()
            sched.step()
    return {"loss": loss.item()}
