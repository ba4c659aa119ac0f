import copy

import torch
from torch import nn

META = dict(title="ReduceLROnPlateau by epoch, early stopping, best weights restored", looks_like="lr falls, weights loaded")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(300, 10)
    y = (x[:, :1] + 0.5 * x[:, 1:2] ** 2) + 0.3 * torch.randn(300, 1)
    net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    sched = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.3, patience=2)
    best, kept, waited = float("inf"), None, 0
    for epoch in range(40):
        net.train()
        for i in torch.randperm(240).split(24):
            loss = nn.functional.mse_loss(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            val = nn.functional.mse_loss(net(x[240:]), y[240:]).item()
        sched.step(val)
        if val < best:
            best, kept, waited = val, copy.deepcopy(net.state_dict()), 0
        elif (waited := waited + 1) > 5:
            break
    net.load_state_dict(kept)
    return {"val": best}
