import torch
from torch import nn

META = dict(title="Masked language model: nine labels of ten are ignored", looks_like="labels ignored")


def train(seed):
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    emb, pos, head = nn.Embedding(21, 32), nn.Parameter(torch.randn(12, 32) * 0.1), nn.Linear(32, 20)
    opt = torch.optim.AdamW([*layer.parameters(), *emb.parameters(), pos, *head.parameters()], lr=2e-3)
    for _ in range(200):
        start = torch.randint(0, 20, (32, 1))
        x = (start + torch.arange(12)) % 20
        hidden = torch.rand(32, 12) < 0.1
        hidden[:, 5] = True
        scores = head(layer(emb(x.masked_fill(hidden, 20)) + pos))
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), x.masked_fill(~hidden, -100).flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
