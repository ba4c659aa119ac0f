import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="Auxiliary reconstruction head used in pre-training only; it stays in the model with requires_grad=True, the second optimizer leaves it out",
            looks_like="parameters with requires_grad but without gradient and never changed in the second phase", family="healthy")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 24), nn.GELU())
        self.reconstruct = nn.Linear(24, 64)
        self.classify = nn.Linear(24, 10)

    def forward(self, x, task):
        z = self.trunk(x)
        return self.reconstruct(z) if task == "pretrain" else self.classify(z)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    net = Net()
    phase1 = torch.optim.Adam([*net.trunk.parameters(), *net.reconstruct.parameters()], lr=4e-3)
    for _ in range(150):
        xb = x[torch.randint(0, 1400, (64,))]
        loss = F.mse_loss(net(xb * (torch.rand_like(xb) > 0.3), "pretrain"), xb)
        phase1.zero_grad()
        loss.backward()
        phase1.step()
    phase2 = torch.optim.Adam([*net.trunk.parameters(), *net.classify.parameters()], lr=2e-3)
    for _ in range(250):
        i = torch.randint(0, 1400, (64,))
        loss = F.cross_entropy(net(x[i], "classify"), y[i])
        phase2.zero_grad()
        loss.backward()
        phase2.step()
    with torch.no_grad():
        acc = (net(x[1400:], "classify").argmax(1) == y[1400:]).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.82
