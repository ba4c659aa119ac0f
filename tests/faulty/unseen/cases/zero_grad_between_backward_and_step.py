import torch
import torch.nn as nn

META = dict(
    title="zero_grad called between backward and step",
    source="order slip in hand-written loops (also seen in gradient-accumulation refactorings)",
    family="wiring",
    faults=["calls.misordered_calls"],
    where="",
    words=["zero_grad between backward and step", "gradients cleared before the step", "wrong order of calls", "misordered calls", "zero_grad called after backward", "parameters never updated", "weights never change", "not learning", "loss plateau"],
    location="run_epoch: loss.backward(); optimizer.zero_grad(); optimizer.step()",
    symptom="gradients are fine after backward, gone at the step; weights never change, loss flat",
)


class ToneNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(1, 8, 7, stride=2), nn.ReLU(), nn.Conv1d(8, 8, 5, stride=2), nn.ReLU())
        self.fc = nn.LazyLinear(4)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def tones(n):
    k = torch.randint(0, 4, (n,))
    t = torch.linspace(0, 1, 64)
    x = torch.sin(2 * torch.pi * (2 + 3 * k[:, None]) * t + 6.28 * torch.rand(n, 1)) + 0.4 * torch.randn(n, 64)
    return x[:, None], k


def run_epoch(model, optimizer, fixed, steps=60):
    total = 0.0
    for _ in range(steps):
        x, k = tones(32)
        loss = nn.functional.cross_entropy(model(x), k)
        if fixed:
            optimizer.zero_grad()
            loss.backward()
        else:
            loss.backward()
            optimizer.zero_grad()
        optimizer.step()
        total += loss.item() / steps
    return total


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    model = ToneNet()
    model(torch.zeros(1, 1, 64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return {f"epoch{e}": run_epoch(model, optimizer, fixed) for e in range(4)}


def separates(buggy, fixed):
    return buggy["epoch3"] > 0.95 * buggy["epoch0"] and fixed["epoch3"] < 0.3
