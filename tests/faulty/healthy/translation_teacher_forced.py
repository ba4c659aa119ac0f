import torch
from torch import nn

META = dict(title="nn.Transformer that copies a sentence: the source is seen whole, the target is masked")


class Copier(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(14, 32)
        self.pos = nn.Parameter(torch.randn(12, 32) * 0.1)
        self.core = nn.Transformer(32, 4, 1, 1, 64, batch_first=True, dropout=0.0)
        self.out = nn.Linear(32, 14)

    def forward(self, src, tgt):
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
        a, b = (self.emb(t) + self.pos[: t.shape[1]] for t in (src, tgt))
        return self.out(self.core(a, b, tgt_mask=mask))


def train(seed):
    torch.manual_seed(seed)
    model = Copier()
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(100):
        text = torch.cat([torch.zeros(24, 1).long(), torch.randint(2, 14, (24, 9)), torch.ones(24, 1).long()], 1)
        loss = nn.functional.cross_entropy(model(text, text[:, :-1]).transpose(1, 2), text[:, 1:])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
