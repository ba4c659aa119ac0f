import torch
from torch import nn
from torch.nn import functional as F

META = dict(title="log_softmax over the batch axis before nll_loss", faults=["objective.softmax_axis"], where="")


class Net(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 5, padding=2)
        self.fc = nn.Linear(8 * 20, 6)
        self.dim = dim

    def forward(self, x):
        h = F.relu(self.conv(x)).flatten(1)
        return F.log_softmax(self.fc(h), dim=self.dim)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Net(1 if fixed else 0)
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    waves = torch.stack([torch.sin(torch.linspace(0, k + 1, 20) * 3.14) for k in range(6)])
    for _ in range(220):
        y = torch.randint(0, 6, (40,))
        x = (waves[y] + 0.3 * torch.randn(40, 20))[:, None]
        loss = F.nll_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
