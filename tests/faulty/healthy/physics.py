import torch
from torch import nn

META = dict(title="PINN with autograd.grad inside the loss, huge residual at first")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(250):
        t = (torch.rand(64, 1) * 3).requires_grad_()
        u = net(t)
        du = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        loss = ((du + 2 * u) ** 2).mean() + 100 * ((net(torch.zeros(1, 1)) - 1) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
