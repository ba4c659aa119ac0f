import math, torch
from torch import nn
import torch.nn.functional as F

META = dict(title="small GPT, 0.02 init, warm-up and cosine, accumulation, bf16 autocast, clip, decay groups")


class B(nn.Module):
    def __init__(s, d):
        super().__init__()
        s.l1, s.l2 = nn.LayerNorm(d), nn.LayerNorm(d)
        s.q = nn.Linear(d, 3 * d)
        s.o = nn.Linear(d, d)
        s.m = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(s, x):
        b, t, d = x.shape
        q, k, v = [z.view(b, t, 4, d // 4).transpose(1, 2) for z in s.q(s.l1(x)).chunk(3, -1)]
        x = x + s.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d))
        return x + s.m(s.l2(x))


class G(nn.Module):
    def __init__(s, v=16, d=32):
        super().__init__()
        s.e = nn.Embedding(v, d)
        s.p = nn.Embedding(16, d)
        s.b = nn.ModuleList([B(d), B(d)])
        s.l = nn.LayerNorm(d)
        s.h = nn.Linear(d, v, bias=False)
        s.h.weight = s.e.weight
        for n, p in s.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(s, i):
        x = s.e(i) + s.p(torch.arange(i.size(1)))
        for b in s.b:
            x = b(x)
        return s.h(s.l(x))


def train(seed):
    torch.manual_seed(seed)
    g = G()
    nx = torch.randperm(16)
    o = torch.optim.AdamW(
        [
            {"params": [p for p in g.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in g.parameters() if p.dim() < 2], "weight_decay": 0},
        ],
        lr=3e-3,
        betas=(0.9, 0.95),
    )
    for it in range(120):
        lr = 3e-3 * min(1, it / 15) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * it / 120)))
        for gr in o.param_groups:
            gr["lr"] = lr
        for _ in range(2):
            s = [torch.randint(0, 16, (8,))]
            for _ in range(12):
                s.append(torch.where(torch.rand(8) < 0.85, nx[s[-1]], torch.randint(0, 16, (8,))))
            s = torch.stack(s, 1)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                l = F.cross_entropy(g(s[:, :-1]).flatten(0, 1).float(), s[:, 1:].flatten()) / 2
            l.backward()
        nn.utils.clip_grad_norm_(g.parameters(), 1.0)
        o.step()
        o.zero_grad(set_to_none=True)
    return {"loss": l.item() * 2}
