import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Gradients are clipped after the step",
    faults=["calls.misordered_calls"],
    where="clip",
    style="GRU, function per step",
)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(15, 12)
        self.gru = nn.GRU(12, 24, batch_first=True)
        self.out = nn.Linear(24, 3)

    def forward(self, ids):
        return self.out(self.gru(self.emb(ids))[0])


def one_step(model, opt, ids, tags, fixed):
    opt.zero_grad()
    loss = F.cross_entropy(model(ids).flatten(0, 1), tags.flatten())
    loss.backward()
    if fixed:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    opt.step()
    if not fixed:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    return loss.item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Tagger()
    opt = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    for _ in range(120):
        ids = torch.randint(0, 15, (16, 10))
        last = one_step(model, opt, ids, ids % 3, fixed)
    return {"loss": last}
