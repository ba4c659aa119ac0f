import torch
from torch import nn

META = dict(
    title="torch.manual_seed stands in the loop: each step draws the same batch",
    faults=["batches.reseeding"],
    where="torch.manual_seed",
    style="regression, batches by randint",
)


def get_batch(x, y, size, seed=None):
    if seed is not None:
        torch.manual_seed(seed)
    i = torch.randint(0, len(x), (size,))
    return x[i], y[i]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(1000, 12)
    y = torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(200):
        xb, yb = get_batch(x, y, 32, seed=None if fixed else seed)
        loss = nn.functional.mse_loss(net(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item(), "all": nn.functional.mse_loss(net(x), y).item()}
