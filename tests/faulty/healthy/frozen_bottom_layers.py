import torch
from torch import nn

META = dict(title="Two of four blocks are frozen, all parameters go to the optimizer, batch norm of the frozen part stays in eval mode", looks_like="parameters without gradients, modules in eval mode")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(20), nn.ReLU()) for _ in range(4))
        self.out = nn.Linear(20, 3)

    def train(self, mode=True):
        super().train(mode)
        for b in self.blocks[:2]:
            b.eval()
        return self

    def forward(self, x):
        for b in self.blocks:
            x = b(x)
        return self.out(x)


def train(seed):
    torch.manual_seed(seed)
    net = Net()
    for b in net.blocks[:2]:
        b.requires_grad_(False)
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    x = torch.randn(600, 20)
    y = (x @ torch.randn(20, 3)).argmax(1)
    for epoch in range(6):
        net.train()
        for i in range(0, 500, 25):
            loss = nn.functional.cross_entropy(net(x[i : i + 25]), y[i : i + 25])
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            val = nn.functional.cross_entropy(net(x[500:]), y[500:]).item()
    return {"val": val}
