import torch
from torch import nn

META = dict(
    title="maximize=True is left over from a policy gradient program",
    faults=["losses.loss_divergence", "gradients.explosion"],
    where="",
    style="optimizer option",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3, maximize=not fixed)
    w = torch.randn(5, 1)
    for _ in range(250):
        x = torch.randn(32, 5)
        loss = nn.functional.mse_loss(net(x), x @ w)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
