import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Features pass through .data, the convolution never trains",
    faults=["updates.frozen_parameters"],
    where="features",
    style="one module, two stages",
)


class Net(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Linear(6 * 16, 4)
        self.cut = cut

    def forward(self, x):
        h = self.features(x).flatten(1)
        return self.classifier(h.data if self.cut else h)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Net(not fixed)
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    for _ in range(150):
        y = torch.randint(0, 4, (32,))
        x = torch.randn(32, 1, 8, 8)
        for k in range(32):
            x[k, 0, 2 * y[k] : 2 * y[k] + 2] += 0.8
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
