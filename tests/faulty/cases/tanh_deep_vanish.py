import torch
from torch import nn

META = dict(title="30-layer tanh net with small init", faults=["activations.spread", "gradients.vanishing"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    ls = []
    for k in range(24):
        l = nn.Linear(20, 20)
        nn.init.normal_(l.weight, std=(0.22 if fixed else 0.05))
        nn.init.zeros_(l.bias)
        ls += [l, nn.Tanh()]
    net = nn.Sequential(*ls, nn.Linear(20, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.05 if not fixed else 0.02, momentum=0.9)
    for _ in range(300):
        x = torch.randn(64, 20)
        l = nn.functional.cross_entropy(net(x), (x[:, 0] > 0).long())
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
