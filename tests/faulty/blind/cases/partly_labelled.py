import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["gradients.nonfinite"],
    title="Masked regression loss divided by an empty mask",
    words=["zero divided by zero", "NaN from 0/0", "mean over an empty selection", "division by zero in the loss"],
    where="",
    shows="NaN loss in the first batch without labels, all weights NaN from there on",
)


def masked_mse(pred, target, mask, floor):
    se = ((pred - target) ** 2 * mask).sum()
    n = mask.sum()
    return se / (n.clamp(min=1) if floor else n)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    w = 0.5 * torch.randn(6)
    x = torch.randn(2000, 6)
    y = torch.tanh(x @ w)
    has = (torch.rand(2000) < 0.35).float()
    net = nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    hist = []
    for it in range(400):
        i = torch.randint(0, 2000, (10,))
        loss = masked_mse(net(x[i])[:, 0], y[i], has[i], fixed)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    with torch.no_grad():
        mse = F.mse_loss(net(x)[:, 0], y).item()
    return {"first": hist[0], "mse": mse, "target_var": y.var().item()}
