import torch
from torch import nn

META = dict(
    title="optimizer.step() comes before loss.backward()",
    faults=["calls.misordered_calls"],
    where="step",
    style="bare loop, hand slicing, zero_grad at the top",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.rand(1000, 6) * 2 - 1
    y = torch.sin(3 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    net = nn.Sequential(nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 1))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    for step in range(200):
        i = (step * 50) % 1000
        opt.zero_grad()
        loss = ((net(x[i : i + 50]) - y[i : i + 50]) ** 2).mean()
        if fixed:
            loss.backward()
            opt.step()
        else:
            opt.step()
            loss.backward()
    return {"loss": loss.item()}
