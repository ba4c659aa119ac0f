import torch
from torch import nn

META = dict(
    title="One batch with inputs in other units wrecks the weights",
    faults=["losses.loss_spike", "gradients.explosion"],
    where="",
    style="bare loop, momentum SGD",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    w = torch.randn(10, 1)
    net = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for step in range(300):
        x = torch.randn(32, 10)
        y = torch.tanh(x @ w)
        if step == 170 and not fixed:
            y = y * 3000
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
