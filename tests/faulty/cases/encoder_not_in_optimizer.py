import torch
from torch import nn

META = dict(
    title="Only the decoder's parameters are given to the optimizer",
    faults=["updates.frozen_parameters"],
    where="encoder",
    style="seq2seq, two modules",
)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(12, 16)
        self.rnn = nn.LSTM(16, 24, batch_first=True)

    def forward(self, s):
        return self.rnn(self.emb(s))[1][0][0]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    encoder, decoder = Encoder(), nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 12))
    params = list(decoder.parameters()) + (list(encoder.parameters()) if fixed else [])
    opt = torch.optim.Adam(params, lr=3e-3)
    for _ in range(120):
        s = torch.randint(0, 12, (32, 6))
        loss = nn.functional.cross_entropy(decoder(encoder(s)), s[:, 0])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
