import torch
from torch import nn

META = dict(
    title="The head is in both optimizers: net.parameters() where net.body.parameters() was meant, and the rates add up",
    faults=["updates.double_updates"],
    where="head",
    style="two optimizers, one loss",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(14, 32), nn.ReLU())
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.body(x))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Net()
    slow = torch.optim.Adam(net.body.parameters() if fixed else net.parameters(), lr=1e-3)
    fast = torch.optim.SGD(net.head.parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(14, 4)
    for _ in range(200):
        x = torch.randn(48, 14)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        slow.zero_grad()
        fast.zero_grad()
        loss.backward()
        slow.step()
        fast.step()
    return {"loss": loss.item()}
