import torch
from torch import nn

META = dict(title="A constraint whose weight doubles every 40 steps: the loss takes steps up", looks_like="loss divergence and spikes")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    weight = 0.05
    for step in range(320):
        x = torch.randn(64, 5)
        out = net(x)
        loss = nn.functional.mse_loss(out, x[:, :1] * 2) + weight * torch.relu(out.abs() - 1.5).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 40 == 39:
            weight *= 2
    return {"loss": loss.item()}
