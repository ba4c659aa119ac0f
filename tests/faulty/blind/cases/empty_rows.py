import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["gradients.nonfinite"],
    title="Attention over variable-length histories where some histories are empty",
    words=["softmax over a fully masked row", "all keys masked gives NaN", "masked softmax NaN", "attention on empty sequence"],
    where="",
    shows="NaN in the output of those rows, then in the loss and all weights",
)


class HistoryAttn(nn.Module):
    def __init__(self, d, guard):
        super().__init__()
        self.emb = nn.Embedding(40, d)
        self.q = nn.Parameter(torch.randn(d))
        self.k = nn.Linear(d, d)
        self.out = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, 1))
        self.guard = guard

    def forward(self, ids, length):
        e = self.emb(ids)
        s = self.k(e) @ self.q / e.size(-1) ** 0.5
        pad = torch.arange(ids.size(1))[None] >= length[:, None]
        s = s.masked_fill(pad, -1e4 if self.guard else float("-inf"))
        w = s.softmax(1)
        if self.guard:
            w = w * ~pad
        return self.out((w[..., None] * e).sum(1)).squeeze(1)


def histories(n, value):
    ids = torch.randint(0, 40, (n, 6))
    length = torch.randint(0, 7, (n,))
    length = torch.where(torch.rand(n) < 0.9, length.clamp(min=1), length)
    keep = torch.arange(6)[None] < length[:, None]
    y = (value[ids] * keep).sum(1) / length.clamp(min=1)
    return ids, length, y


def train(seed, fixed=False):
    torch.manual_seed(seed)
    value = torch.randn(40)
    m = HistoryAttn(16, guard=fixed)
    opt = torch.optim.Adam(m.parameters(), lr=5e-3)
    h = []
    for step in range(300):
        i, l, y = histories(64, value)
        loss = F.mse_loss(m(i, l), y)
        opt.zero_grad(); loss.backward(); opt.step()
        h.append(loss.item())
    return {"first": h[0], "last": h[-1], "mean_last": sum(h[-20:]) / 20}
