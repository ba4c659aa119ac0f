import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="SimCLR-like NT-Xent: loss starts near ln(2N - 1) and settles high",
            looks_like="loss above ln(classes) and flat in the second half, -inf on the diagonal of the logits", family="healthy")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 32))
        self.projector = nn.Sequential(nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x):
        return F.normalize(self.projector(self.backbone(x)), dim=1)


def view(x):
    dx, dy = torch.randint(-1, 2, (2,)).tolist()
    return x.roll((dx, dy), (2, 3)) * (0.7 + 0.6 * torch.rand(len(x), 1, 1, 1)) + 0.15 * torch.randn_like(x)


def nt_xent(z1, z2, tau=0.3):
    z = torch.cat([z1, z2])
    n = len(z1)
    sim = z @ z.t() / tau
    sim = sim.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(sim, (torch.arange(2 * n) + n) % (2 * n))


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.images / 16, dtype=torch.float32)[:, None], torch.tensor(d.target)
    enc = Encoder()
    opt = torch.optim.Adam(enc.parameters(), lr=2e-3)
    h = []
    for step in range(200):
        xb = x[torch.randint(0, 1400, (64,))]
        loss = nt_xent(enc(view(xb)), enc(view(xb)))
        opt.zero_grad()
        loss.backward()
        opt.step()
        h.append(loss.item())
    with torch.no_grad():
        f = F.normalize(enc.backbone(x), dim=1)
        nearest = (f[1400:] @ f[:1400].t()).argmax(1)
        acc = (y[:1400][nearest] == y[1400:]).float().mean().item()
    return {"first": h[0], "last": sum(h[-10:]) / 10, "knn_acc": acc}


def healthy(m):
    return m["last"] < 0.85 * m["first"] and m["knn_acc"] > 0.8
