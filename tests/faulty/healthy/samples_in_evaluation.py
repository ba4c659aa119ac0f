import torch
from torch import nn
from torch.nn import functional as F

META = dict(title="A classifier behind a stochastic code, which is drawn in evaluation too")


class Code(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.mean, self.spread = nn.Linear(6, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.head, self.drop = nn.Linear(4, 2), nn.Dropout(0.1)

    def forward(self, x):
        h = self.drop(torch.relu(self.body(x)))
        z = self.mean(h) + torch.randn(len(x), 4) * F.softplus(self.spread(h) - 3)
        return self.head(z)


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(320, 6)
    y = (x[:, :2].prod(1) > 0).long()
    net = Code()
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    for epoch in range(15):
        net.train()
        for rows in torch.randperm(256).split(32):
            opt.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            accuracy = (net(x[256:]).argmax(1) == y[256:]).float().mean()
    return {"accuracy": accuracy.item()}
