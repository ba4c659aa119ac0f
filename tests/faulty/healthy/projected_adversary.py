import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Adversarial training: several backwards for the inputs, each cleared, before the one that trains",
    looks_like="zero_grad between accumulated backwards",
)


def attack(net, x, y, steps=4, size=0.1):
    delta = torch.zeros_like(x, requires_grad=True)
    for _ in range(steps):
        F.cross_entropy(net(x + delta), y).backward()
        with torch.no_grad():
            delta += size / 3 * delta.grad.sign()
            delta.clamp_(-size, size)
        delta.grad = None
        net.zero_grad()
    return (x + delta).detach()


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 3))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    w = torch.randn(10, 3)
    for _ in range(120):
        x = torch.randn(32, 10)
        y = (x @ w).argmax(1)
        loss = F.cross_entropy(net(attack(net, x, y)), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
