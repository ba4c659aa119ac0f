import torch
from torch import nn

META = dict(
    title="The head is replaced after the optimizer was made",
    faults=["updates.frozen_parameters"],
    where="head",
    style="fine-tuning, new number of classes",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(x))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Net()
    if fixed:
        net.head = nn.Linear(32, 5)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    if not fixed:
        net.head = nn.Linear(32, 5)
    x = torch.randn(500, 12)
    y = (x @ torch.randn(12, 5)).argmax(1)
    for step in range(150):
        i = torch.randint(0, 500, (32,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
