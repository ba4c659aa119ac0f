import torch
from torch import nn

META = dict(title="Curriculum: now and then a batch of the hardest rows, shrugged off", looks_like="loss spikes")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    w = torch.randn(6, 1)
    for step in range(400):
        hard = step > 100 and step % 37 == 0
        x = torch.randn(32, 6) * (4.0 if hard else 1.0)
        y = torch.sin(x @ w)
        y = y + (torch.distributions.StudentT(2.0).sample((32, 1)) if hard else 0.05 * torch.randn(32, 1))
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
