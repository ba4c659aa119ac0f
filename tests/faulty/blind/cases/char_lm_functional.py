import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    faults=["model.causal_leak"],
    title="Character model on a small corpus, scaled_dot_product_attention without is_causal",
    words=["missing causal mask", "future tokens visible", "is_causal not set", "attention looks ahead"],
    where="",
    shows="loss falls to nearly zero while left-to-right prediction is bad",
)
TEXT = ("the cat sat on the mat and the dog ran to the red barn where a hen and a pig ate corn from the old tin pan "
        "so the man who had the barn got mad and hid the corn but the pig dug a pit and the hen sat in it all day long ") * 1


def make_corpus(seed, n=6000):
    g = torch.Generator().manual_seed(seed)
    words = TEXT.split()
    pick = torch.randint(0, len(words), (n // 4,), generator=g).tolist()
    s = " ".join(words[i] for i in pick)[:n]
    chars = sorted(set(s))
    return torch.tensor([chars.index(c) for c in s]), len(chars)


class SelfAttention(nn.Module):
    def __init__(self, d, h, causal):
        super().__init__()
        self.h, self.causal = h, causal
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.h, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class LM(nn.Module):
    def __init__(self, v, t, d=32, causal=False):
        super().__init__()
        self.te = nn.Embedding(v, d)
        self.pe = nn.Parameter(0.5 * torch.randn(t, d))
        self.n1, self.n2, self.n3, self.n4, self.n5 = (nn.LayerNorm(d) for _ in range(5))
        self.a1, self.a2 = SelfAttention(d, 2, causal), SelfAttention(d, 2, causal)
        self.f1, self.f2 = (nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, d)) for _ in range(2))
        self.head = nn.Linear(d, v)

    def forward(self, i):
        x = self.te(i) + self.pe[: i.shape[1]]
        x = x + self.a1(self.n1(x))
        x = x + self.f1(self.n2(x))
        x = x + self.a2(self.n3(x))
        x = x + self.f2(self.n4(x))
        return self.head(self.n5(x))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    data, v = make_corpus(seed)
    T = 24
    net = LM(v, T, causal=fixed)
    opt = torch.optim.AdamW(net.parameters(), lr=6e-3)

    def get(lo, hi):
        s = torch.randint(lo, hi - T - 1, (24,))
        w = torch.stack([data[j:j + T + 1] for j in s.tolist()])
        return w[:, :-1], w[:, 1:]

    for step in range(400):
        x, y = get(0, 5000)
        loss = F.cross_entropy(net(x).transpose(1, 2), y)
        opt.zero_grad(); loss.backward(); opt.step()
    with torch.no_grad():
        gen = []
        for t in range(4, T):
            x, y = get(5000, len(data))
            gen.append(F.cross_entropy(net(x[:, :t])[:, -1], y[:, t - 1]).item())
    return {"train_loss": loss.item(), "left_to_right_loss": sum(gen) / len(gen)}
