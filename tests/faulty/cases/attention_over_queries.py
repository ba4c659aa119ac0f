import math

import torch
from torch import nn

META = dict(title="Self-attention normalised over the queries", faults=["objective.softmax_axis"], where="")


class Attention(nn.Module):
    def __init__(self, d, heads, axis):
        super().__init__()
        self.heads, self.axis = heads, axis
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
        w = (q @ k.transpose(-1, -2) / math.sqrt(d / self.heads)).softmax(self.axis)
        return self.proj((w @ v).transpose(1, 2).reshape(b, t, d))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Embedding(12, 16), Attention(16, 2, -1 if fixed else -2), nn.Flatten(), nn.Linear(160, 12))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(200):
        x = torch.randint(0, 12, (32, 10))
        loss = nn.functional.cross_entropy(net(x), x.max(1).values)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
