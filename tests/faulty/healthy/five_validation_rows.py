import torch
from torch import nn

META = dict(title="A validation set of five rows: its loss jumps up and down by half from epoch to epoch")


def train(seed):
    torch.manual_seed(seed)
    y = torch.randint(0, 3, (305,))
    x = torch.randn(3, 10)[y] * 1.5 + 1.2 * torch.randn(305, 10)
    net = nn.Sequential(nn.Linear(10, 24), nn.Tanh(), nn.Linear(24, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(20):
        for i in torch.randperm(300).split(25):
            loss = nn.functional.cross_entropy(net(x[i]), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        with torch.no_grad():
            val = nn.functional.cross_entropy(net(x[300:]), y[300:]).item()
    return {"val": val}
