import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Validation loop without eval, BatchNorm, DataLoader", faults=["calls.misordered_calls"], where="validation")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(800, 10)
    y = (x[:, 0] + x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 2))
    opt = torch.optim.Adam(net.parameters(), 2e-3)
    lf = nn.CrossEntropyLoss()
    tr, va = DataLoader(TensorDataset(x[:600], y[:600]), 20, shuffle=True), DataLoader(TensorDataset(x[600:], y[600:]), 50)
    for ep in range(6):
        net.train()
        for a, b in tr:
            opt.zero_grad()
            l = lf(net(a), b)
            l.backward()
            opt.step()
        if fixed:
            net.eval()
        tot = 0
        with torch.no_grad():
            for a, b in va:
                tot += lf(net(a), b).item()
    return {"val": tot / 4}
