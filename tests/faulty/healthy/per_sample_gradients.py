import torch
from torch import nn

META = dict(
    title="Differentially private SGD by hand: each sample's gradient is taken, clipped and cleared; their sum is put back",
    looks_like="zero_grad between the backwards of a step",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Linear(6, 2)
    opt = torch.optim.SGD(net.parameters(), lr=0.5)
    w = torch.randn(6, 2)
    for _ in range(60):
        x = torch.randn(8, 6)
        y = (x @ w).argmax(1)
        sums = [torch.zeros_like(p) for p in net.parameters()]
        for xi, yi in zip(x, y):
            net.zero_grad()
            loss = nn.functional.cross_entropy(net(xi[None]), yi[None])
            loss.backward()
            norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
            for s, p in zip(sums, net.parameters()):
                s += p.grad / max(1.0, float(norm))
        for s, p in zip(sums, net.parameters()):
            p.grad = (s + 0.05 * torch.randn_like(s)) / len(x)
        opt.step()
    return {"loss": loss.item()}
