import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

META = dict(
    title="Missing target coded as -9999 slips into one batch of a regression",
    source="common practice in weather station files (missing = -9999)",
    family="data",
    faults=["losses.loss_spike", "gradients.explosion"],
    where="",
    words=["loss spike", "bad batch", "outlier label", "outlier in the targets", "missing value code in the target", "gradient spike", "exploding gradients"],
    location="StationData target of rows 900-903: -9999; loss spike in the batches that hold them",
    symptom="loss jumps by seven orders of magnitude in single batches (gradient norm far above the clip limit of 50), and each jump pushes the model off course",
)


class StationData(Dataset):
    def __init__(self, n, seed, drop_missing):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, 6)).astype(np.float32)
        y = (x @ rng.normal(size=6) + 0.5 * np.sin(3 * x[:, 0]) + 0.2 * rng.normal(size=n)).astype(np.float32)
        y[900:904] = -9999.0
        keep = y > -9000 if drop_missing else np.ones(n, bool)
        self.x, self.y = x[keep], y[keep]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def fit(model, data, epochs=4):
    loader = DataLoader(data, batch_size=32, shuffle=False)
    opt = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for epoch in range(epochs):
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.mse_loss(model(x).squeeze(-1), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 50.0)
            opt.step()
            losses.append(loss.item())
    return losses


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    data = StationData(1600, seed, drop_missing=fixed)
    model = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))
    losses = fit(model, data)
    return {"max_loss": max(losses), "median_loss": float(np.median(losses)), "last": float(np.mean(losses[-5:]))}


def separates(buggy, fixed):
    return buggy["max_loss"] > 1e4 * buggy["median_loss"] and fixed["max_loss"] < 100 * fixed["median_loss"] and fixed["last"] < 0.5
