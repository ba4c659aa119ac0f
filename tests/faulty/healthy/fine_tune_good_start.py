import torch
from torch import nn

META = dict(title="Fine-tuning from weights that are already near the optimum", looks_like="flat loss from the first step")


def data(n, w):
    x = torch.randn(n, 10)
    return x, (x @ w + 0.3 * torch.randn(n, 3)).argmax(1)


def train(seed):
    torch.manual_seed(seed)
    w = torch.randn(10, 3)
    net = nn.Linear(10, 3)
    with torch.no_grad():
        net.weight.copy_(3 * w.T)
        net.bias.zero_()
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4)
    for _ in range(200):
        x, y = data(64, w)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
