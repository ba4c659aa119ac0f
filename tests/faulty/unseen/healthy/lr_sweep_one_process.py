import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer

META = dict(title="Hyper-parameter sweep over sensible learning rates and widths in one process; the best is trained on",
            looks_like="several models, differing loss levels, losses jump back at each new trial", family="healthy")


def run(x, y, lr, width, steps, g):
    model = nn.Sequential(nn.Linear(30, width), nn.ReLU(), nn.Linear(width, 1))
    opt = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        i = torch.randint(0, 400, (32,), generator=g)
        loss = nn.functional.binary_cross_entropy_with_logits(model(x[i]).squeeze(1), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        return model, nn.functional.binary_cross_entropy_with_logits(model(x[400:485]).squeeze(1), y[400:485]).item()


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    X, t = load_breast_cancer(return_X_y=True)
    p = torch.randperm(569)
    x = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)[p]
    y = torch.tensor(t, dtype=torch.float32)[p]
    grid = [(lr, w) for lr in (1e-3, 3e-3, 1e-2) for w in (8, 32)]
    results = [(run(x, y, lr, w, 120, g)[1], lr, w) for lr, w in grid]
    best = min(results)
    model, _ = run(x, y, best[1], best[2], 200, g)
    with torch.no_grad():
        acc = ((model(x[485:]).squeeze(1) > 0) == (y[485:] > 0.5)).float().mean().item()
    return {"acc": acc, "best_val": best[0]}


def healthy(m):
    return m["acc"] > 0.9
