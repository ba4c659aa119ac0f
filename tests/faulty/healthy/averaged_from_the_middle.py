import copy
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

META = dict(
    title="The average begins in the middle: a deep copy with the gradients of that step, evaluated often",
    looks_like="gradients of parameters in no optimizer",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(400, 8)
    y = (x[:, 0] > 0).long()
    mean = None
    best = None
    for e in range(10):
        for i in torch.randperm(400).split(40):
            opt.zero_grad()
            l = nn.functional.cross_entropy(net(x[i]), y[i])
            l.backward()
            opt.step()
        if e == 4:
            mean = AveragedModel(net)
        if e > 4:
            mean.update_parameters(net)
            update_bn([x[:200], x[200:]], mean)
        best = copy.deepcopy(net)
        with torch.no_grad():
            best.eval()(x)
    with torch.no_grad():
        return {"l": nn.functional.cross_entropy(mean(x), y).item()}
