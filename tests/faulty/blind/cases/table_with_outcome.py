import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["model.targets_equal_inputs"],
    title="Progression table where the outcome column is still among the features",
    words=["target leaked into the inputs", "label leakage", "target column in the features", "input contains the target"],
    where="",
    shows="training and validation loss suspiciously close to zero, one input column equals the target",
)


def features(keep_outcome):
    d = load_diabetes()
    x = torch.tensor(d.data).float() / 0.0476
    y = torch.tensor(d.target).float()
    y = (y - y.mean()) / y.std()
    cols = [x, y[:, None] if keep_outcome else torch.zeros(len(y), 1)]
    return torch.cat(cols, 1), y


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x, y = features(keep_outcome=not fixed)
    p = torch.randperm(len(y))
    tr, va = p[:340], p[340:]
    model = nn.Sequential(nn.Linear(11, 16), nn.SiLU(), nn.Linear(16, 1))
    opt = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for ep in range(20):
        for xb, yb in DataLoader(TensorDataset(x[tr], y[tr]), 34, shuffle=True):
            loss = nn.functional.mse_loss(model(xb).squeeze(-1), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        val = nn.functional.mse_loss(model(x[va]).squeeze(-1), y[va]).item()
        live = x[va].clone()
        live[:, -1] = 0
        live_mse = nn.functional.mse_loss(model(live).squeeze(-1), y[va]).item()
    return {"train": loss.item(), "val": val, "deployed": live_mse}
