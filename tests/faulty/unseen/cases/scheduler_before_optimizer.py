import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="Pre-1.1 style: scheduler.step() at the head of each epoch, before any optimizer.step()",
    source="PyTorch 1.1 release notes (order of lr_scheduler.step and optimizer.step)",
    family="optimizer",
    faults=["calls.misordered_calls"],
    where="",
    words=["scheduler stepped before the optimizer", "lr_scheduler.step before optimizer.step", "wrong order of calls", "misordered calls", "first learning rate of the schedule skipped"],
    location="epoch loop: scheduler.step() before the batches; ExponentialLR(gamma=0.5)",
    symptom="the first epoch already runs at lr * gamma, the initial learning rate is never used; higher final loss",
)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X / 16, dtype=torch.float32), torch.tensor(y)
    loader = DataLoader(TensorDataset(X[:1400], y[:1400]), batch_size=10, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = ExponentialLR(optimizer, gamma=0.5)
    first_lr = None
    for epoch in range(5):
        if not fixed:
            scheduler.step()
        first_lr = first_lr or optimizer.param_groups[0]["lr"]
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
        if fixed:
            scheduler.step()
    with torch.no_grad():
        out = model(X[1400:])
    return {"first_lr": first_lr, "val_loss": nn.functional.cross_entropy(out, y[1400:]).item()}


def separates(buggy, fixed):
    return buggy["first_lr"] < fixed["first_lr"] and buggy["val_loss"] > 1.3 * fixed["val_loss"]
