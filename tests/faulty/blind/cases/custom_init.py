import torch
from sklearn.datasets import load_digits
from torch import nn

META = dict(
    faults=["activations.dead_units"],
    title="Digits net with a hand-made initialiser on non-negative pixels",
    words=["dead ReLUs", "dead units", "ReLU units never fire", "bad initialisation"],
    where="",
    shows="hidden activations all zero, only the output bias learns, accuracy is chance",
)


def init_weights(model, low, high):
    for m in model:
        if isinstance(m, nn.Linear):
            bound = (6 / m.in_features) ** 0.5
            nn.init.uniform_(m.weight, low * bound, high * bound)
            nn.init.zeros_(m.bias)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    x = torch.tensor(d.images / 16).float().flatten(1)
    y = torch.tensor(d.target)
    perm = torch.randperm(len(x))
    tr, te = perm[:1400], perm[1400:]
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))
    init_weights(model, -1.0, 1.0 if fixed else 0.0)
    opt = torch.optim.Adam(model.parameters(), 2e-3)
    ce = nn.CrossEntropyLoss()
    for epoch in range(8):
        for idx in tr[torch.randperm(1400)].split(50):
            loss = ce(model(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        return {"loss": loss.item(), "acc": (model(x[te]).argmax(1) == y[te]).float().mean().item()}
