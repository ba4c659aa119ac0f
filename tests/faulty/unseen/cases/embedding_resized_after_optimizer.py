import torch
import torch.nn as nn

META = dict(
    title="Token embedding enlarged for new special tokens after the optimizer was built",
    source="'resize_token_embeddings' called after the optimizer was created, a recurring question",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["module replaced after the optimizer was created", "embedding not in the optimizer", "parameters missing from the optimizer", "parameters never updated", "frozen embedding", "layers never updated"],
    location="model.tok (new nn.Embedding made by resize_tokens) is not in the AdamW made before; tok.weight never updated",
    symptom="embedding keeps its initial values, loss higher than with a trained embedding",
)


class Bag(nn.Module):
    def __init__(self, vocab, d=4):
        super().__init__()
        self.tok = nn.Embedding(vocab, d)
        self.score = nn.Sequential(nn.Linear(d, 6), nn.ReLU(), nn.Linear(6, 1))

    def resize_tokens(self, vocab):
        new = nn.Embedding(vocab, self.tok.embedding_dim)
        with torch.no_grad():
            new.weight[: self.tok.num_embeddings] = self.tok.weight
        self.tok = new

    def forward(self, ids):
        return self.score(self.tok(ids).mean(1)).squeeze(1)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    value = torch.randn(60)
    model = Bag(50)
    if fixed:
        model.resize_tokens(60)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if not fixed:
        model.resize_tokens(60)
    tail = []
    for step in range(400):
        ids = torch.randint(0, 60, (64, 8))
        y = value[ids].sum(1)
        loss = (model(ids) - y).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        tail.append(loss.item())
    return {"mse": sum(tail[-20:]) / 20}


def separates(buggy, fixed):
    return fixed["mse"] < 1.5 and buggy["mse"] > 2.5 * fixed["mse"]
