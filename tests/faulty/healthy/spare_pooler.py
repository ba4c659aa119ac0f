import torch
from torch import nn

META = dict(title="An encoder with a pooler whose output this task does not use", looks_like="parameters without a gradient")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(18, 24)
        self.layer = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.1, batch_first=True)
        self.pooler = nn.Linear(24, 24)

    def forward(self, ids):
        h = self.layer(self.emb(ids))
        return h, torch.tanh(self.pooler(h[:, 0]))


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.tags = nn.Linear(24, 3)
        self.encoder = Encoder()

    def forward(self, ids):
        return self.tags(self.encoder(ids)[0])


def train(seed):
    torch.manual_seed(seed)
    net = Tagger()
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(120):
        ids = torch.randint(0, 18, (16, 8))
        loss = nn.functional.cross_entropy(net(ids).flatten(0, 1), (ids % 3).flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
