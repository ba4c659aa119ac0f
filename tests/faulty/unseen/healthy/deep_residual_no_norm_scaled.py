import torch
import torch.nn as nn

META = dict(title="24 residual blocks without normalisation, last layer of each branch initialised to zero (Fixup idea)",
            looks_like="no normalisation in a deep net; zero weights and zero gradients in the first layer of every block at the first step", family="healthy")


class Branch(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a, self.b = nn.Linear(d, d), nn.Linear(d, d)
        nn.init.kaiming_normal_(self.a.weight)
        nn.init.zeros_(self.b.weight)
        nn.init.zeros_(self.b.bias)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 24), *[Branch(24) for _ in range(24)], nn.Linear(24, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    hist = []
    for step in range(250):
        x = torch.randn(64, 6)
        y = torch.sin(x[:, :1] * 1.5) + x[:, 1:2] * x[:, 2:3]
        loss = nn.functional.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    return {"first": sum(hist[:5]) / 5, "last": sum(hist[-20:]) / 20}


def healthy(m):
    return m["last"] < 0.3 * m["first"]
