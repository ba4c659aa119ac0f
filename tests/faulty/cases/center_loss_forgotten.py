import torch
from torch import nn

META = dict(
    title="A loss module with centres of its own, and an optimizer for the net only",
    faults=["updates.frozen_parameters"],
    where="cent",
)


class Center(nn.Module):
    def __init__(s):
        super().__init__()
        s.centers = nn.Parameter(torch.randn(4, 8))

    def forward(s, h, y):
        return (h - s.centers[y]).pow(2).sum(1).mean()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8))
    head = nn.Linear(8, 4)
    cent = Center()
    opt = torch.optim.Adam([*net.parameters(), *head.parameters(), *(cent.parameters() if fixed else [])], 3e-3)
    w = torch.randn(10, 4)
    for _ in range(150):
        x = torch.randn(32, 10)
        y = (x @ w).argmax(1)
        h = net(x)
        l = nn.functional.cross_entropy(head(h), y) + 0.1 * cent(h, y)
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"l": l.item()}
