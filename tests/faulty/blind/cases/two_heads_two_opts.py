import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.double_updates"],
    title="Two tasks, two optimizers, the encoder is registered in both",
    words=["parameter in two optimizers", "encoder in both optimizers", "same parameters updated twice", "two optimizers update the same weights"],
    where="",
    shows="encoder makes two updates for one backward, the second at the rate meant for a linear head",
)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head_a = nn.Linear(32, 3)
        self.head_b = nn.Linear(32, 1)

    def forward(self, x):
        h = self.encoder(x)
        return self.head_a(h), self.head_b(h)[:, 0]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    w = torch.randn(8, 3)
    m = Shared()
    enc = list(m.encoder.parameters())
    opt_a = torch.optim.Adam(enc + list(m.head_a.parameters()), lr=3e-3)
    opt_b = torch.optim.SGD(list(m.head_b.parameters()) + ([] if fixed else enc), lr=0.17, momentum=0.9)
    hist = []
    for it in range(350):
        x = torch.randn(64, 8)
        s = x @ w
        ya, yb = s.argmax(1), s.tanh().sum(1)
        a, b = m(x)
        loss = F.cross_entropy(a, ya) + F.mse_loss(b, yb)
        opt_a.zero_grad()
        opt_b.zero_grad()
        loss.backward()
        opt_a.step()
        opt_b.step()
        hist.append(loss.item())
    return {"first": hist[0], "last": sum(hist[-30:]) / 30}
