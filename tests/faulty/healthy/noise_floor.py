import torch
from torch import nn

META = dict(title="A linear law under much noise: learned in twenty steps, then flat at the noise floor", looks_like="plateau")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Linear(4, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    w = torch.randn(4, 1) + 1
    for _ in range(400):
        x = torch.randn(16, 4)
        loss = nn.functional.mse_loss(net(x), x @ w + 0.8 * torch.randn(16, 1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
