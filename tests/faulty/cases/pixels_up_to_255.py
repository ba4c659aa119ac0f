import torch
from torch import nn

META = dict(
    title="Pixels from 0 to 255 go into a net that was made for a spread of one",
    faults=["losses.high_start"],
    where="",
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 8)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    shapes = torch.rand(8, 8, 8)
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=5e-5)
    for _ in range(200):
        y = torch.randint(0, 8, (64,))
        x = ((shapes[y] + 0.6 * torch.randn(64, 8, 8)).clamp(0, 1) * 255).round()
        if fixed:
            x = (x - 127) / 74
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
