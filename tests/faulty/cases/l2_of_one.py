import torch
from torch import nn

META = dict(
    title="weight_decay=1.0 under SGD, a slip for 1e-4: the weights go to zero",
    faults=["updates.weight_decay"],
    where="SGD",
    style="convnet, momentum",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 4)
    )
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4 if fixed else 1.0)
    masks = torch.randn(4, 64)
    for _ in range(150):
        x = torch.randn(32, 1, 8, 8)
        y = (x.flatten(1) @ masks.T).argmax(1)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
