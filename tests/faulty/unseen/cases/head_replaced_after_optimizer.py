import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(
    title="Fine-tuning: the classifier head is replaced after the optimizer was created",
    source="common transfer-learning slip (model.fc = nn.Linear(...) after optim.SGD(model.parameters()))",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["module replaced after the optimizer was created", "head not in the optimizer", "parameters missing from the optimizer", "optimizer made before the head was replaced", "frozen head", "parameters never updated", "layers never updated"],
    location="model.fc replaced after torch.optim.SGD(model.parameters()); new model.fc.weight / model.fc.bias never updated",
    symptom="the new head keeps its random initial values; only the body adapts; accuracy lower and loss higher",
)


class SmallCNN(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(256, n_classes)

    def forward(self, x):
        return self.fc(self.features(x))


def run_epochs(model, opt, x, y, n):
    for _ in range(n):
        for b in torch.randperm(len(x)).split(50):
            loss = F.cross_entropy(model(x[b]), y[b])
            opt.zero_grad()
            loss.backward()
            opt.step()


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.images / 16, dtype=torch.float32)[:, None], torch.tensor(d.target)
    parity = y % 2
    model = SmallCNN(2)
    run_epochs(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), x[:700], parity[:700], 3)
    # second task: ten classes
    if fixed:
        model.fc = nn.Linear(256, 10)
    opt = torch.optim.SGD([{"params": model.parameters()}], lr=0.003, momentum=0.9)
    if not fixed:
        model.fc = nn.Linear(256, 10)
    run_epochs(model, opt, x[700:1400], y[700:1400], 8)
    with torch.no_grad():
        out = model(x[1400:])
    return {"val_loss": F.cross_entropy(out, y[1400:]).item(), "val_acc": (out.argmax(1) == y[1400:]).float().mean().item()}


def separates(buggy, fixed):
    return fixed["val_acc"] > 0.75 and buggy["val_loss"] > 1.2 * fixed["val_loss"]
