import copy

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.checkpoint import checkpoint
import torch.nn.functional as F

META = dict(title="Checkpointed residual blocks under bfloat16 autocast, evaluated by an EMA copy",
            looks_like="forward runs twice per step, bfloat16 activations, evaluated model gets no gradients", family="healthy")


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.f = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        return x + self.f(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.o = nn.Linear(64, 48), nn.Linear(48, 10)
        self.blocks = nn.ModuleList(Block(48) for _ in range(2))

    def forward(self, x):
        x = self.i(x)
        for b in self.blocks:
            x = checkpoint(b, x, use_reentrant=False) if self.training else b(x)
        return self.o(x)


@torch.no_grad()
def ema_update(ema, model, k):
    for a, b in zip(ema.parameters(), model.parameters()):
        a.lerp_(b, 1 - k)


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    net = Net()
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    h = []
    for it in range(200):
        i = torch.randint(0, 1400, (48,))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(net(x[i]).float(), y[i])
        opt.zero_grad(); loss.backward(); opt.step()
        ema_update(ema, net, 0.95)
        h.append(loss.item())
    return {"first": h[0], "last": sum(h[-20:]) / 20, "ema_acc": (ema(x[1400:]).argmax(1) == y[1400:]).float().mean().item()}
