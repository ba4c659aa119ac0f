import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Two tasks on a shared trunk, samples ordered from easy to hard in stages",
            looks_like="data sorted by difficulty, loss rises at each stage, task losses on different scales", family="healthy")


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.cls, self.reg = nn.Linear(64, 2), nn.Linear(64, 1)

    def forward(self, x):
        h = self.trunk(x)
        return self.cls(h), self.reg(h).squeeze(-1)


def train(seed):
    torch.manual_seed(seed)
    X = torch.randn(3000, 6)
    margin = X[:, 0] + X[:, 1] * X[:, 2]
    X = X[margin.abs().argsort(descending=True)]
    m = X[:, 0] + X[:, 1] * X[:, 2]
    c, r = (m > 0).long(), X[:, 3] * 10 + 5
    net = Two()
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    hist = []
    for stage in range(1, 6):
        pool = 600 * stage
        for _ in range(70):
            i = torch.randint(0, pool, (64,))
            a, b = net(X[i])
            loss = F.cross_entropy(a, c[i]) + 0.01 * F.mse_loss(b, r[i])
            opt.zero_grad(); loss.backward(); opt.step()
            hist.append(loss.item())
    a, b = net(X)
    return {"first": hist[0], "last": sum(hist[-20:]) / 20, "acc": (a.argmax(1) == c).float().mean().item(), "reg_mse": F.mse_loss(b, r).item()}
