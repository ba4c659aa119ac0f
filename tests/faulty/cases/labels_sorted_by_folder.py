import torch
from torch import nn

META = dict(
    title="Images are listed by name, labels by folder",
    faults=["model.unlearnable_labels"],
    where="labels",
)


def train(seed, fixed=False):
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    kinds = torch.randn(6, 1, 8, 8, generator=g)
    labels = torch.randint(0, 6, (600,), generator=g)
    images = kinds[labels] + 0.4 * torch.randn(600, 1, 8, 8, generator=g)
    if not fixed:
        images = images[torch.randperm(600, generator=g)]
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 6))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(10):
        for rows in torch.randperm(600).split(50):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(images[rows]), labels[rows])
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
