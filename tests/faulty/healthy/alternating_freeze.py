import torch
from torch import nn

META = dict(title="block coordinate descent, requires_grad toggled, one optimizer")


def train(seed):
    torch.manual_seed(seed)
    a, b = nn.Linear(6, 16), nn.Linear(16, 1)
    opt = torch.optim.Adam([*a.parameters(), *b.parameters()], lr=5e-3)
    w = torch.randn(6, 1)
    for k in range(300):
        for p in a.parameters():
            p.requires_grad_(k % 20 < 10)
        for p in b.parameters():
            p.requires_grad_(k % 20 >= 10)
        x = torch.randn(32, 6)
        loss = nn.functional.mse_loss(b(torch.tanh(a(x))), (x @ w).tanh())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
