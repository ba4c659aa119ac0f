import torch
from torch import nn

META = dict(title="The input is optimised through a fixed net that nobody froze", looks_like="parameters with gradients in no optimizer")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4)).eval()
    x = torch.randn(8, 16, requires_grad=True)
    goal = torch.randint(0, 4, (8,))
    opt = torch.optim.Adam([x], lr=0.05)
    for _ in range(150):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), goal)
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
