import math
import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Tiny causal LM with tied embedding and output, masked by -inf, padding ignored",
            looks_like="loss floors well over zero (entropy of the source), one weight used twice, -inf in the scores, many labels -100", family="healthy")


class TiedLM(nn.Module):
    def __init__(self, v, t, d=32):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        nn.init.normal_(self.emb.weight, std=d ** -0.5)
        self.pos = nn.Parameter(torch.randn(t, d) * 0.1)
        self.qkv = nn.Linear(d, 3 * d, bias=False)
        self.ff = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))
        self.n0, self.n1 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.out = nn.Linear(d, v, bias=False)
        self.out.weight = self.emb.weight
        self.register_buffer("mask", torch.full((t, t), -math.inf).triu(1))

    def forward(self, i):
        h = self.emb(i) * math.sqrt(32) + self.pos
        q, k, v = self.qkv(self.n0(h)).chunk(3, -1)
        h = h + torch.softmax(q @ k.mT / math.sqrt(32) + self.mask, -1) @ v
        h = h + self.ff(h)
        return self.out(self.n1(h))


def train(seed):
    torch.manual_seed(seed)
    V, T = 15, 14
    nxt = torch.stack([torch.randperm(V), torch.randperm(V)], 1)
    m = TiedLM(V, T)
    opt = torch.optim.AdamW(m.parameters(), lr=5e-3)
    hist = []
    for it in range(250):
        s = [torch.randint(0, V, (32,))]
        for _ in range(T):
            s.append(nxt[s[-1], torch.randint(0, 2, (32,))])
        s = torch.stack(s, 1)
        tgt = s[:, 1:].clone()
        lens = torch.randint(4, T + 1, (32, 1))
        tgt[torch.arange(T)[None] >= lens] = -100
        loss = F.cross_entropy(m(s[:, :-1]).reshape(-1, V), tgt.reshape(-1))
        opt.zero_grad(); loss.backward(); opt.step()
        hist.append(loss.item())
    return {"first": hist[0], "last": sum(hist[-20:]) / 20, "floor": math.log(2)}
