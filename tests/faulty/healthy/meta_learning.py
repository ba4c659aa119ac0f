import torch
from torch import nn
from torch.func import functional_call

META = dict(title="MAML: inner steps by autograd.grad, an outer Adam", looks_like="two kinds of gradients a step")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(120):
        total = 0.0
        for _ in range(3):
            a, b = torch.rand(2) * 2 + 0.5
            x = torch.rand(20, 1) * 4 - 2
            y = a * torch.sin(x + b)
            p = dict(net.named_parameters())
            inner = nn.functional.mse_loss(functional_call(net, p, (x[:10],)), y[:10])
            g = torch.autograd.grad(inner, list(p.values()), create_graph=True)
            p = {k: v - 0.05 * d for (k, v), d in zip(p.items(), g)}
            total = total + nn.functional.mse_loss(functional_call(net, p, (x[10:],)), y[10:])
        opt.zero_grad()
        total.backward()
        opt.step()
    return {"loss": total.item()}
