import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="A copied initialiser fills the convolution biases with -20: F.relu never opens",
    faults=["activations.dead_units", "gradients.vanishing"],
    where="conv",
    style="Module with F.relu, no activation modules",
)


class Net(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)
        for conv in (self.conv1, self.conv2):
            nn.init.constant_(conv.bias, bias)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    y = torch.randint(0, 3, (300,))
    x = 0.3 * torch.randn(300, 1, 8, 8)
    for k in range(3):
        x[y == k, :, :, 2 * k : 2 * k + 3] += 1
    net = Net(0.0 if fixed else -20.0)
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(150):
        i = torch.randint(0, 300, (32,))
        loss = F.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
