import torch
import torch.nn as nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

META = dict(title="LSTM on packed variable-length sequences with clipping at 0.25",
            looks_like="clipping in almost every step, padding zeros, ragged batches", family="healthy")


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(15, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 24, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(48, 2)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.emb(ids), lengths, batch_first=True, enforce_sorted=False)
        _, (h, _) = self.lstm(packed)
        return self.fc(torch.cat([h[0], h[1]], 1))


def sample(n):
    lens = torch.randint(3, 12, (n,))
    seqs = [torch.randint(1, 15, (int(k),)) for k in lens]
    lab = torch.tensor([int((s == 5).any()) for s in seqs])
    return pad_sequence(seqs, batch_first=True), lens, lab


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    model = Tagger()
    opt = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.8)
    ce = nn.CrossEntropyLoss()
    for step in range(220):
        ids, lens, lab = sample(48)
        loss = ce(model(ids, lens), lab)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        opt.step()
    with torch.no_grad():
        ids, lens, lab = sample(600)
        acc = (model(ids, lens).argmax(1) == lab).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.9
