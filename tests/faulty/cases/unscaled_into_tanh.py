import torch
from torch import nn

META = dict(
    title="Raw sensor readings of some thousands go straight into a tanh layer",
    faults=["activations.saturation", "gradients.vanishing"],
    where="",
    style="regression, nn.Tanh modules, SGD",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    t = torch.rand(500, 4) * 6 - 3
    y = torch.sin(t[:, :1]) + 0.5 * torch.cos(t[:, 1:2] * 2)
    x = t if fixed else t * 4000 + 2_000_000
    net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(300):
        i = torch.randint(0, 500, (64,))
        loss = nn.functional.mse_loss(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
