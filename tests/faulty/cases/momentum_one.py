import torch
from torch import nn

META = dict(
    title="momentum=1.0 instead of 0.9 never forgets a direction",
    faults=["losses.loss_divergence", "gradients.explosion", "losses.loss_spike", "updates.update_scale", "losses.plateau"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9 if fixed else 1.0)
    w = torch.randn(10, 1)
    for _ in range(300):
        x = torch.randn(48, 10)
        l = nn.functional.mse_loss(net(x), x @ w)
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
