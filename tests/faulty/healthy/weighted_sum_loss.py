import torch
from torch import nn

META = dict(title="sum reduction, batch sizes vary, small lr")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=2e-4)
    w = torch.randn(6, 1)
    for k in range(300):
        n = int(torch.randint(8, 257, (1,)))
        x = torch.randn(n, 6)
        loss = nn.functional.mse_loss(net(x), x @ w, reduction="sum")
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
