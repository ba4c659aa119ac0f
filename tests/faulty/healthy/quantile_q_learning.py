import torch
from torch import nn
from torch.nn import functional as F

META = dict(
    title="Quantile regression: each predicted quantile against each sample, on purpose",
    looks_like="(N, 1) against (N,) in huber",
)


def train(seed):
    torch.manual_seed(seed)
    n = 16
    net = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, n))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    tau = (torch.arange(n) + 0.5) / n
    for _ in range(220):
        s = torch.randn(1, 3).expand(16, 3) if seed % 2 else torch.randn(16, 3)
        samples = s[:, :1] + torch.randn(16, n) * (1 + s[:, 1:2].abs())
        theta = net(s)
        diff = samples[:, None, :] - theta[:, :, None]
        weight = (tau[None, :, None] - (diff.detach() < 0).float()).abs()
        loss = (
            weight
            * F.huber_loss(theta[:, :, None].expand_as(diff), samples[:, None, :].expand_as(diff), reduction="none")
        ).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
