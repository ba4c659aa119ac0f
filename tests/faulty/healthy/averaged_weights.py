import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, update_bn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Stochastic weight averaging with update_bn at the end", looks_like="a copy in no optimizer, forwards in train mode without gradients")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(600, 10)
    y = (x[:, :5].sum(1) > 0).long()
    net = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    mean = AveragedModel(net)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    sched = SWALR(opt, swa_lr=0.02, anneal_epochs=3)
    loader = DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True)
    for epoch in range(8):
        for xb, yb in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(xb), yb)
            loss.backward()
            opt.step()
        if epoch > 3:
            mean.update_parameters(net)
            sched.step()
    update_bn(loader, mean)
    mean.eval()
    with torch.no_grad():
        return {"loss": nn.functional.cross_entropy(mean(x), y).item()}
