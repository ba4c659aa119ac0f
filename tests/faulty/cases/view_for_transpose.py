import torch
from torch import nn

META = dict(
    title="Tagging: view(B, C, T) of (B, T, C) where a transposition was meant",
    faults=["objective.softmax_axis"],
    where="",
)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(30, 16)
        self.rnn = nn.GRU(16, 24, batch_first=True)
        self.out = nn.Linear(24, 7)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Tagger()
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    lossf = nn.CrossEntropyLoss()
    for _ in range(200):
        x = torch.randint(0, 30, (16, 9))
        y = x % 7
        scores = net(x)
        scores = scores.transpose(1, 2) if fixed else scores.reshape(16, 7, 9)
        loss = lossf(scores, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
