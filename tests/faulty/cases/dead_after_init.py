import torch
from torch import nn

META = dict(
    title="A bias of -8 switches every hidden unit off",
    faults=["gradients.vanishing", "activations.dead_units"],
    where="",
    style="nn.ReLU modules, custom init",
)


def init(m, bias):
    if isinstance(m, nn.Linear):
        nn.init.xavier_uniform_(m.weight)
        nn.init.constant_(m.bias, bias)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    net.apply(lambda m: init(m, 0.0 if fixed else -8.0))
    nn.init.zeros_(net[4].bias)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(200):
        x = torch.randn(64, 8)
        y = x[:, :1] - x[:, 1:2] + 0.5 * x[:, 2:3] ** 2
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
