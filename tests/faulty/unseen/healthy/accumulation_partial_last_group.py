import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Gradient accumulation over 4 micro-batches, the last group of an epoch has only one",
            looks_like="several backward calls between zero_grad calls, step only every fourth batch", family="healthy")

ACCUM = 4


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    loader = DataLoader(TensorDataset(x[:1380], y[:1380]), batch_size=20, shuffle=True)  # 69 batches = 17 * 4 + 1
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10))
    opt = torch.optim.AdamW(model.parameters(), lr=4e-3)
    n = len(loader)
    for epoch in range(8):
        for i, (xb, yb) in enumerate(loader):
            group = min(ACCUM, n - i // ACCUM * ACCUM)
            loss = nn.functional.cross_entropy(model(xb), yb) / group
            loss.backward()
            if (i + 1) % ACCUM == 0 or i + 1 == n:
                opt.step()
                opt.zero_grad()
    with torch.no_grad():
        acc = (model(x[1380:]).argmax(1) == y[1380:]).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.85
