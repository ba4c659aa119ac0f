import torch
from torch import nn

META = dict(title="A validation before the first epoch leaves eval mode on for good", faults=["calls.misordered_calls"], where="eval", style="functions, sanity check first")


def score(model, x, y):
    model.eval()
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(800, 12)
    y = (x[:, 0] > 0).long() + (x[:, 1] * x[:, 2] > 0).long()
    model = nn.Sequential(nn.Linear(12, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 3))
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scores = [score(model, x[600:], y[600:])]
    for epoch in range(8):
        if fixed:
            model.train()
        for i in range(0, 600, 30):
            loss = nn.functional.cross_entropy(model(x[i : i + 30]), y[i : i + 30])
            opt.zero_grad()
            loss.backward()
            opt.step()
        scores.append(score(model, x[600:], y[600:]))
    return {"val": scores[-1]}
