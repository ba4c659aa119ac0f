import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="zero_grad placed in the epoch loop, step in the batch loop",
    source="indentation slip",
    family="gradients",
    faults=["gradients.stale_gradients"],
    where="",
    words=["zero_grad only once per epoch", "missing zero_grad", "stale gradients never cleared", "stale gradients", "gradients accumulate across iterations"],
    location="train(): optimizer.zero_grad() before `for x, y in loader`, not inside it",
    symptom="gradient norm is a saw-tooth that grows within each epoch; training is unstable",
)


def build():
    return nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x = torch.tensor(d.data, dtype=torch.float32) / 16
    y = torch.tensor(d.target)
    loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=28, shuffle=True, drop_last=True)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    for epoch in range(8):
        if not fixed:
            optimizer.zero_grad()
        for xb, yb in loader:
            if fixed:
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        out = model(x[1400:])
    return {"val_loss": nn.functional.cross_entropy(out, y[1400:]).item(), "val_acc": (out.argmax(1) == y[1400:]).float().mean().item()}


def separates(buggy, fixed):
    return fixed["val_acc"] > 0.88 and not buggy["val_loss"] < 1.5 * fixed["val_loss"]
