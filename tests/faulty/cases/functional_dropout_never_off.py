import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="F.dropout(x) without training=self.training", faults=["model.eval_noise"], where="Net")


class Net(nn.Module):
    def __init__(self, told):
        super().__init__()
        self.a, self.b = nn.Linear(10, 64), nn.Linear(64, 4)
        self.told = told

    def forward(self, x):
        h = F.relu(self.a(x))
        h = F.dropout(h, 0.3, training=self.training) if self.told else F.dropout(h, 0.3)
        return self.b(h)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(500, 10)
    y = (x[:, 0] > 0).long() * 2 + (x[:, 1] + x[:, 2] > 0).long()
    net = Net(fixed)
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(8):
        net.train()
        for i in range(0, 400, 40):
            opt.zero_grad()
            F.cross_entropy(net(x[i : i + 40]), y[i : i + 40]).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            accuracy = (net(x[400:]).argmax(1) == y[400:]).float().mean()
    return {"accuracy": accuracy.item()}
