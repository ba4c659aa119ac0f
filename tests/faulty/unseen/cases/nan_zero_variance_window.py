import numpy as np
import torch
import torch.nn as nn

META = dict(
    title="Sensor windows standardised by their own std; one flat window divides by zero",
    source="common pitfall: per-window (instance) normalisation without eps; from memory",
    family="data",
    faults=["gradients.nonfinite"],
    where="",
    words=["division by zero", "zero standard deviation", "zero variance", "missing epsilon in normalisation", "NaN in the input batch", "NaN loss"],
    location="WindowNet.forward / instance_norm: (x - mean) / std where a window of a stuck sensor is constant, 0 / 0",
    symptom="training is normal until the first batch holding a flat window, then loss and all weights are NaN",
)


def instance_norm(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + eps)


class WindowNet(nn.Module):
    def __init__(self, eps):
        super().__init__()
        self.eps = eps
        self.body = nn.Sequential(nn.Conv1d(1, 12, 5, padding=2), nn.GELU(), nn.Conv1d(12, 12, 5, padding=2), nn.GELU(), nn.AdaptiveAvgPool1d(4), nn.Flatten())
        self.fc = nn.Linear(48, 3)

    def forward(self, x):
        return self.fc(self.body(instance_norm(x, self.eps).unsqueeze(1)))


def make_windows(rng, n, length=48):
    kind = rng.integers(0, 3, n)
    t = np.linspace(0, 1, length)
    freq = np.array([2.0, 4.0, 7.0])[kind][:, None]
    phase = rng.uniform(0, 6.28, (n, 1))
    x = np.sin(2 * np.pi * freq * t + phase) * rng.uniform(0.5, 3, (n, 1)) + 0.3 * rng.normal(size=(n, length))
    return x.astype("float32"), kind


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x, y = make_windows(rng, 1200)
    x[777] = 21.5  # a stuck sensor
    xt, yt = map(torch.from_numpy, (x, y))
    net = WindowNet(1e-5 if fixed else 0.0)
    opt = torch.optim.AdamW(net.parameters(), lr=4e-3)
    history = []
    for epoch in range(5):
        for lo in range(0, 1200, 48):
            out = net(xt[lo:lo + 48])
            loss = nn.functional.cross_entropy(out, yt[lo:lo + 48])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            history.append(loss.item())
    return {"loss_step_10": history[10], "loss": float(np.mean(history[-20:]))}


def separates(buggy, fixed):
    return buggy["loss_step_10"] == buggy["loss_step_10"] and buggy["loss"] != buggy["loss"] and fixed["loss"] < 0.5
