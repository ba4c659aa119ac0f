import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Domain adversary: a second head is shown batches of one domain each, whose labels are all equal",
    looks_like="batches of a single class",
)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -0.1 * grad


def train(seed):
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
    head, domain = nn.Linear(32, 3), nn.Linear(32, 2)
    opt = torch.optim.Adam([*body.parameters(), *head.parameters(), *domain.parameters()], lr=3e-3)
    w = torch.randn(8, 3)
    for step in range(160):
        x = torch.randn(32, 8) + 0.5 * (step % 2)
        h = body(x)
        loss = F.cross_entropy(head(h), (x @ w).argmax(1))
        loss = loss + 0.3 * F.cross_entropy(domain(Reverse.apply(h)), torch.full((32,), step % 2))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
