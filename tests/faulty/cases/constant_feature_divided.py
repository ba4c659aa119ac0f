import numpy as np
import torch
from torch import nn

META = dict(title="Standardisation divides a constant column by its zero spread", faults=["gradients.nonfinite"], where="", style="numpy preprocessing")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(300, 6))
    table[:, 4] = 1.0
    y = torch.tensor(table[:, 0] - table[:, 1], dtype=torch.float32)[:, None]
    with np.errstate(all="ignore"):
        scaled = (table - table.mean(0)) / (table.std(0) + (1e-8 if fixed else 0.0))
    x = torch.tensor(scaled, dtype=torch.float32)
    net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for epoch in range(10):
        for i in range(0, 300, 30):
            loss = nn.functional.mse_loss(net(x[i : i + 30]), y[i : i + 30])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
