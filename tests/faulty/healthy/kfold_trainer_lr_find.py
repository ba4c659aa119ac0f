import torch
from torch import nn

META = dict(title="A learning-rate finder before training: the loss blows up in it, by design, on a copy")
import copy


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    w = torch.randn(8, 3)
    probe = copy.deepcopy(net)
    opt = torch.optim.SGD(probe.parameters(), lr=1e-4)
    first = None
    for k in range(60):
        for g in opt.param_groups:
            g["lr"] = 1e-4 * (1.25**k)
        x = torch.randn(32, 8)
        loss = nn.functional.cross_entropy(probe(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
        first = first or loss.item()
        if loss.item() > 3 * first:
            break
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(200):
        x = torch.randn(32, 8)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
