import torch
from sklearn.datasets import load_iris
from torch import nn

META = dict(
    faults=["gradients.nonfinite"],
    title="Metric learning with a hand-made Euclidean distance, pairs drawn with replacement",
    words=["square root of zero gives NaN gradient", "sqrt at zero", "infinite gradient of sqrt", "distance of identical points"],
    where="",
    shows="loss finite, gradient NaN, weights NaN after the first step with such a pair",
)


def dist(a, b, eps):
    return ((a - b) ** 2).sum(1).add(eps).sqrt()


def sample(y, n):
    anchor = torch.randint(0, len(y), (n,))
    same = y[anchor][:, None] == y[None]
    pos = torch.multinomial(same.float(), 1)[:, 0]
    neg = torch.multinomial((~same).float(), 1)[:, 0]
    return anchor, pos, neg


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_iris()
    x = torch.tensor(d.data).float()
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(d.target)
    f = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))
    opt = torch.optim.Adam(f.parameters(), lr=2e-3)
    first = None
    for i in range(200):
        a, p, n = (f(x[j]) for j in sample(y, 64))
        loss = torch.relu(dist(a, p, 1e-8 if fixed else 0.0) - dist(a, n, 1e-8 if fixed else 0.0) + 1.0).mean()
        first = loss.item() if first is None else first
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        e = f(x)
        dd = torch.cdist(e, e) + 1e9 * torch.eye(len(y))
        knn = (y[dd.argmin(1)] == y).float().mean().item()
    return {"first": first, "loss": loss.item(), "knn": knn if torch.isfinite(e).all() else 0.0}
