import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Tied embeddings, AdamW with decay on matrices only, gradient norm measured by an infinite clip", looks_like="shared parameters")


class LM(nn.Module):
    def __init__(self, v=20, d=32):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        nn.init.normal_(self.emb.weight, std=0.05)
        self.rnn = nn.GRU(d, d, batch_first=True)
        self.head = nn.Linear(d, v, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids):
        return self.head(self.rnn(self.emb(ids))[0])


def train(seed):
    torch.manual_seed(seed)
    lm = LM()
    groups = [
        {"params": [p for p in lm.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in lm.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    opt = torch.optim.AdamW(groups, lr=4e-3)
    nxt = torch.randperm(20)
    for _ in range(160):
        s = [torch.randint(0, 20, (16,))]
        for _ in range(10):
            s.append(torch.where(torch.rand(16) < 0.9, nxt[s[-1]], torch.randint(0, 20, (16,))))
        s = torch.stack(s, 1)
        loss = F.cross_entropy(lm(s[:, :-1]).flatten(0, 1), s[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(lm.parameters(), float("inf"))
        opt.step()
        opt.zero_grad()
    return {"loss": loss.item()}
