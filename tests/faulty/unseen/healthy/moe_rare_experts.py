import torch
import torch.nn as nn

META = dict(title="Top-1 mixture of experts on data where two regions are rare: some experts get no token in most batches",
            looks_like="expert parameters with zero or no gradient in many steps", family="healthy")


class MoE(nn.Module):
    def __init__(self, n=6, d=16):
        super().__init__()
        self.gate = nn.Linear(4, n)
        nn.init.normal_(self.gate.weight, std=0.8)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, d), nn.ReLU(), nn.Linear(d, 1)) for _ in range(n))

    def forward(self, x):
        p = self.gate(x).softmax(-1)
        w, idx = p.max(-1)
        out = x.new_zeros(len(x), 1)
        for e, expert in enumerate(self.experts):
            rows = (idx == e).nonzero().squeeze(1)
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * w[rows, None])
        return out, p


def batch(n):
    region = torch.multinomial(torch.tensor([0.4, 0.3, 0.285, 0.01, 0.005]), n, replacement=True)
    centre = torch.tensor([[3., 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 0, 0, 3], [-3, -3, 0, 0]])
    x = centre[region] + 0.5 * torch.randn(n, 4)
    slope = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.5])
    return x, (slope[region] * x.sum(1)).unsqueeze(1)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    net = MoE()
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    hist = []
    for step in range(350):
        x, y = batch(48)
        out, p = net(x)
        loss = nn.functional.mse_loss(out, y) + 0.01 * (p.mean(0) ** 2).sum() * 6
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    return {"first": sum(hist[:10]) / 10, "last": sum(hist[-20:]) / 20}


def healthy(m):
    return m["last"] < 0.1 * m["first"]
