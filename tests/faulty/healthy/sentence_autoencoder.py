import torch
from torch import nn

META = dict(title="One module encodes a whole sentence and writes it again, taught by its own words")


class Sentence(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(15, 16)
        self.encoder = nn.GRU(16, 24, batch_first=True, bidirectional=True)
        self.squeeze = nn.Linear(48, 24)
        self.decoder = nn.GRU(16, 24, batch_first=True)
        self.out = nn.Linear(24, 15)

    def forward(self, ids):
        _, h = self.encoder(self.words(ids))
        h = torch.tanh(self.squeeze(h.transpose(0, 1).flatten(1)))[None]
        return self.out(self.decoder(self.words(ids), h)[0])[:, :-1]


def train(seed):
    torch.manual_seed(seed)
    model = Sentence()
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(120):
        ids = torch.randint(0, 15, (32, 7))
        loss = nn.functional.cross_entropy(model(ids).reshape(-1, 15), ids[:, 1:].reshape(-1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
