import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Mixture of four experts with top-1 routing and a balance term",
            looks_like="some experts receive no gradient in a step, hard argmax in the forward", family="healthy")


class MoE(nn.Module):
    def __init__(self, d, n):
        super().__init__()
        self.gate = nn.Linear(d, n)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, 1)) for _ in range(n))

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        top, idx = p.max(-1)
        out = x.new_zeros(len(x), 1)
        for e, f in enumerate(self.experts):
            sel = (idx == e).nonzero()[:, 0]
            if len(sel):
                out = out.index_add(0, sel, f(x[sel]) * top[sel, None])
        frac = F.one_hot(idx, p.size(1)).float().mean(0)
        return out, p.size(1) * (frac * p.mean(0)).sum()


def train(seed):
    torch.manual_seed(seed)
    m = MoE(4, 4)
    opt = torch.optim.Adam(m.parameters(), lr=1e-2)
    h = []
    for it in range(400):
        x = torch.randn(96, 4)
        y = torch.where(x[:, :1] > 0, x[:, 1:2] * 2, torch.sin(2 * x[:, 2:3]))
        out, bal = m(x)
        mse = F.mse_loss(out, y)
        opt.zero_grad()
        (mse + 0.01 * bal).backward()
        opt.step()
        h.append(mse.item())
    return {"first": h[0], "last": sum(h[-40:]) / 40}
