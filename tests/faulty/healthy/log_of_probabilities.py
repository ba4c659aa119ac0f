import torch
from torch import nn

META = dict(
    title="Softmax, then its logarithm with an epsilon, into nll_loss", looks_like="a softmax before a likelihood"
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(7, 24), nn.ReLU(), nn.Linear(24, 6), nn.Softmax(dim=1))
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    for _ in range(220):
        x = torch.randn(32, 7)
        p = net(x)
        loss = (
            nn.functional.nll_loss((p + 1e-8).log(), x[:, :6].argmax(1))
            + 0.01 * (p * p.clamp_min(1e-6).log()).sum(1).mean()
        )
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
