import torch
import torch.nn as nn

META = dict(
    title="Sequence-to-sequence model: only the decoder's parameters reach the optimizer",
    source="seq2seq tutorials with two optimizers, one dropped in a refactoring",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["parameters missing from the optimizer", "encoder not in the optimizer", "parameters not passed to the optimizer", "parameters never updated", "frozen encoder", "layers never updated"],
    location="torch.optim.Adam(decoder.parameters()); encoder.* gets gradients but is never updated",
    symptom="encoder gradients exist, weights unchanged; the copy task is not solved",
)


class Encoder(nn.Module):
    def __init__(self, v, h):
        super().__init__()
        self.emb, self.rnn = nn.Embedding(v, h), nn.GRU(h, h, batch_first=True)

    def forward(self, s):
        return self.rnn(self.emb(s))[1]


class Decoder(nn.Module):
    def __init__(self, v, h):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(v, h), nn.GRU(h, h, batch_first=True), nn.Linear(h, v)

    def forward(self, prev, h):
        return self.out(self.rnn(self.emb(prev), h)[0])


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    V, H = 8, 28
    encoder, decoder = Encoder(V, H), Decoder(V, H)
    params = list(decoder.parameters())
    if fixed:
        params = list(encoder.parameters()) + params
    adam = torch.optim.Adam(params, lr=8e-3)
    ce = nn.CrossEntropyLoss()
    kept = []
    for it in range(350):
        src = torch.randint(1, V, (64, 7))
        tgt = src.flip(1)
        prev = torch.cat([torch.zeros(64, 1, dtype=torch.long), tgt[:, :-1]], 1)
        loss = ce(decoder(prev, encoder(src)).transpose(1, 2), tgt)
        encoder.zero_grad()
        decoder.zero_grad()
        loss.backward()
        adam.step()
        kept.append(loss.item())
    return {"loss": sum(kept[-20:]) / 20}


def separates(buggy, fixed):
    return buggy["loss"] > 1.4 * fixed["loss"] and fixed["loss"] < 0.9
