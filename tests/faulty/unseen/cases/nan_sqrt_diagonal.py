import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from sklearn.datasets import load_iris

META = dict(
    title="Metric learning: batch distance matrix takes the square root of an exactly zero diagonal",
    source="common pitfall in triplet / contrastive losses (gradient of sqrt at 0); from memory",
    family="loss",
    faults=["gradients.nonfinite"],
    where="",
    words=["NaN gradient from sqrt at zero", "infinite gradient of sqrt at 0", "0 * inf in backward", "missing epsilon in sqrt", "NaN gradients", "NaN weights after the first step"],
    location="pairwise_distance: torch.sqrt(squared.clamp(min=0)); diagonal entries are exactly 0, SqrtBackward gives inf, times 0 is NaN",
    symptom="first loss is finite and reasonable, its gradients are NaN, from the second step on everything is NaN",
)


class Flowers(Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def pairwise_distance(z, eps):
    diff = z[:, None, :] - z[None, :, :]
    return torch.sqrt(diff.pow(2).sum(-1) + eps)


def contrastive(z, y, eps, margin=1.5):
    d = pairwise_distance(z, eps)
    same = (y[:, None] == y[None, :]).float()
    return (same * d ** 2 + (1 - same) * torch.relu(margin - d) ** 2).mean()


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    X, y = load_iris(return_X_y=True)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)
    y = torch.tensor(y)
    eps = 1e-6 if fixed else 0.0
    encoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    dl = DataLoader(Flowers(X, y), batch_size=30, shuffle=True)
    losses = []
    for epoch in range(25):
        for xb, yb in dl:
            loss = contrastive(encoder(xb), yb, eps)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
    return {"first_loss": losses[0], "last_loss": sum(losses[-5:]) / 5}


def separates(buggy, fixed):
    return buggy["first_loss"] == buggy["first_loss"] and buggy["last_loss"] != buggy["last_loss"] and fixed["last_loss"] < 0.6 * fixed["first_loss"]
