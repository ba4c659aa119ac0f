import torch
from torch import nn

META = dict(
    title="Sharpness-aware steps by hand: two backwards of one line on the same batch, cleared between",
    looks_like="gradients thrown away before the step",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(12, 3)

    def backward(x, y):
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        return loss

    for _ in range(150):
        x = torch.randn(32, 12)
        y = (x @ w).argmax(1)
        loss = backward(x, y)
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm() + 1e-12
            moves = [p.grad * (0.05 / norm) for p in net.parameters()]
            for p, e in zip(net.parameters(), moves):
                p.add_(e)
        backward(x, y)
        with torch.no_grad():
            for p, e in zip(net.parameters(), moves):
                p.sub_(e)
        opt.step()
    return {"loss": loss.item()}
