import torch
from torch import nn

META = dict(
    title="Gaussian likelihood: log-variance without a floor on noise-free data, weights blow up",
    faults=["losses.loss_divergence", "gradients.nonfinite", "gradients.explosion", "losses.loss_spike"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2))
    opt = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)
    for k in range(400):
        x = torch.randn(64, 3)
        mu, lv = net(x).chunk(2, 1)
        y = torch.zeros(64, 1)
        if fixed:
            lv = lv.clamp(min=-1)
        loss = (lv + (y - mu) ** 2 * torch.exp(-lv)).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
