import torch
from torch import nn

META = dict(
    title="nn.TransformerEncoderLayer without batch_first is given batches of sentences",
    faults=["model.batch_mixing"],
    where="body",
)


class Sentiment(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.body = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first, dropout=0.0)
        self.head = nn.Linear(16, 3)

    def forward(self, ids):
        return self.head(self.body(self.words(ids)).mean(1))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    ids = torch.randint(0, 50, (480, 14))
    mood = (ids < 15).sum(1).sub(3).clamp(0, 2)
    model = Sentiment(batch_first=fixed)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(5):
        order = torch.randperm(480)
        for rows in order.split(32):
            loss = nn.functional.cross_entropy(model(ids[rows]), mood[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
