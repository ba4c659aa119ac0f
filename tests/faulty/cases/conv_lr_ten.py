import torch
from torch import nn

META = dict(title="SGD lr=10 on a conv net", faults=["updates.update_scale", "gradients.explosion"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 4),
    )
    opt = torch.optim.SGD(net.parameters(), lr=0.1 if fixed else 10, momentum=0.9)
    for _ in range(150):
        y = torch.randint(0, 4, (32,))
        x = torch.randn(32, 1, 8, 8)
        x[torch.arange(32), 0, 2 * y] += 1.5
        l = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
