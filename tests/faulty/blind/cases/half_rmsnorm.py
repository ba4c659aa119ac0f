import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["gradients.vanishing"],
    title="RMSNorm that squares large activations in half precision",
    words=["fp16 overflow", "half precision overflow", "square overflows in float16", "norm output is zero because of overflow"],
    where="",
    shows="normalised activations are zero, no gradient below the norm, loss at chance without any NaN",
)


class RMSNorm(nn.Module):
    def __init__(self, d, dtype):
        super().__init__()
        self.g = nn.Parameter(torch.ones(d))
        self.dtype = dtype

    def forward(self, x):
        r = torch.rsqrt(x.to(self.dtype).pow(2).mean(-1, keepdim=True).float() + 1e-6)
        return x * r * self.g


class Net(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.inp = nn.Linear(12, 48)
        self.norm = RMSNorm(48, dtype)
        self.out = nn.Sequential(nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 6))

    def forward(self, x):
        return self.out(self.norm(self.inp(x)))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    centres = 900 * torch.randn(6, 12)
    net = Net(torch.float32 if fixed else torch.float16)
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    hist = []
    for step in range(220):
        y = torch.randint(0, 6, (48,))
        x = centres[y] + 500 * torch.randn(48, 12)
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    return {"first": hist[0], "last": sum(hist[-20:]) / 20}
