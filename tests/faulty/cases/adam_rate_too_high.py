import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="A small transformer under Adam with lr 0.3",
    faults=["updates.update_scale"],
    where="Adam",
    style="transformer, sequence copying",
)


class Copier(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(10, 24)
        self.pos = nn.Parameter(torch.randn(8, 24) * 0.1)
        self.block = nn.TransformerEncoderLayer(24, 2, 48, dropout=0.0, batch_first=True)
        self.out = nn.Linear(24, 10)

    def forward(self, ids):
        return self.out(self.block(self.emb(ids) + self.pos))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Copier()
    opt = torch.optim.Adam(model.parameters(), lr=3e-3 if fixed else 0.3)
    for _ in range(150):
        ids = torch.randint(0, 10, (24, 8))
        loss = F.cross_entropy(model(ids).transpose(1, 2), ids.roll(1, 1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
