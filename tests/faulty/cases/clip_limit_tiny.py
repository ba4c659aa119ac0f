import torch
from torch import nn

META = dict(title="clip_grad_norm_ with 1e-8, a slip for 1.0", faults=["updates.update_scale"], where="SGD", style="clipping")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(9, 30), nn.ReLU(), nn.Linear(30, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(9, 3)
    for _ in range(200):
        x = torch.randn(40, 9)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0 if fixed else 1e-8)
        opt.step()
    return {"loss": loss.item()}
