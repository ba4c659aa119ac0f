import torch
from torch import nn

META = dict(
    title="Losses are added up with their graphs for one epoch, and let go", looks_like="graphs kept across steps"
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 2))
    opt = torch.optim.SGD(net.parameters(), 0.1)
    means = []
    for _ in range(8):
        total = 0
        for _ in range(40):
            x = torch.randn(24, 5)
            loss = nn.functional.cross_entropy(net(x), (x[:, 0] > x[:, 1]).long())
            opt.zero_grad()
            loss.backward()
            opt.step()
            total = total + loss
        means.append((total / 40).item())
    return {"loss": means[-1]}
