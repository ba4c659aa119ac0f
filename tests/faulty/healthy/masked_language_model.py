import torch
from torch import nn

META = dict(title="An encoder that sees both sides, trained on masked words")


def train(seed):
    torch.manual_seed(seed)
    emb, head = nn.Embedding(20, 32), nn.Linear(32, 20)
    body = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 1)
    model = nn.Sequential(emb, body, head)
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(100):
        words = torch.randint(2, 20, (16, 1)).add(torch.arange(12)).remainder(18).add(2)
        hidden = torch.rand(16, 12) < 0.2
        labels = words.masked_fill(~hidden, -100)
        loss = nn.functional.cross_entropy(model(words.masked_fill(hidden, 1)).flatten(0, 1), labels.flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
