import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(title="Language model with tied input and output embeddings (nanoGPT style), decay and no-decay groups",
            looks_like="one parameter under two names, two roles, one gradient; parameter count mismatch", family="healthy")


class Block(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.c_attn, self.c_proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.h = h

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.h, C // self.h).transpose(1, 2) for t in self.c_attn(self.ln_1(x)).split(C, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + self.c_proj(y)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocab, block, d=32, n=2):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, d), nn.Embedding(block, d)
        self.h = nn.ModuleList(Block(d, 4) for _ in range(n))
        self.ln_f = nn.LayerNorm(d)
        self.lm_head = nn.Linear(d, vocab, bias=False)
        self.apply(self._init)
        self.lm_head.weight = self.wte.weight

    def _init(self, m):
        if isinstance(m, (nn.Linear, nn.Embedding)):
            nn.init.normal_(m.weight, std=0.02)
            if getattr(m, "bias", None) is not None:
                nn.init.zeros_(m.bias)

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.size(1)))
        for b in self.h:
            x = b(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


CORPUS = "she sells sea shells by the sea shore and the shells she sells are sea shells for sure so if she sells shells on the sea shore " * 8


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    stoi = {c: i for i, c in enumerate(sorted(set(CORPUS)))}
    data = torch.tensor([stoi[c] for c in CORPUS])
    model = GPT(len(stoi), 24)
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=4e-3, betas=(0.9, 0.95))
    hist = []
    for it in range(160):
        ix = torch.randint(len(data) - 25, (16,))
        x = torch.stack([data[i:i + 24] for i in ix])
        y = torch.stack([data[i + 1:i + 25] for i in ix])
        loss = model(x, y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        hist.append(loss.item())
    return {"first": hist[0], "last": sum(hist[-10:]) / 10}


def healthy(m):
    return m["last"] < 0.4 * m["first"]
