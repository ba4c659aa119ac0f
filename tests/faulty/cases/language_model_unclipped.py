import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="A huge rate that only works with clipping, and without the clipping", faults=["gradients.explosion", "updates.update_scale"], where="", style="LSTM language model")


class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(20, 32)
        self.rnn = nn.LSTM(32, 32, batch_first=True)
        self.out = nn.Linear(32, 20)

    def forward(self, s):
        return self.out(self.rnn(self.emb(s))[0])


def train(seed, fixed=False):
    torch.manual_seed(seed)
    lm, nxt = LM(), torch.randperm(20)
    opt = torch.optim.SGD(lm.parameters(), lr=200.0)
    for _ in range(150):
        s = [torch.randint(0, 20, (16,))]
        for _ in range(12):
            s.append(torch.where(torch.rand(16) < 0.8, nxt[s[-1]], torch.randint(0, 20, (16,))))
        s = torch.stack(s, 1)
        loss = F.cross_entropy(lm(s[:, :-1]).flatten(0, 1), s[:, 1:].flatten())
        opt.zero_grad()
        loss.backward()
        if fixed:
            nn.utils.clip_grad_norm_(lm.parameters(), 0.01)
        opt.step()
    return {"loss": loss.item()}
