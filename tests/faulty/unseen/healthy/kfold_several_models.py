import torch
import torch.nn as nn
from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

META = dict(title="Five-fold cross-validation: five fresh models and optimizers one after another in one run",
            looks_like="loss jumps back to its initial value four times, models of earlier folds stop changing", family="healthy")


def fit_fold(xtr, ytr, xte, yte):
    net = nn.Sequential(nn.Linear(13, 20), nn.ReLU(), nn.Linear(20, 3))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for epoch in range(20):
        for idx in torch.randperm(len(xtr)).split(24):
            loss = nn.functional.cross_entropy(net(xtr[idx]), ytr[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
    net.eval()
    with torch.no_grad():
        return (net(xte).argmax(1) == yte).float().mean().item()


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    X, y = load_wine(return_X_y=True)
    scores = []
    for a, b in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y):
        sc = StandardScaler().fit(X[a])
        to = lambda v: torch.tensor(sc.transform(v), dtype=torch.float32)
        scores.append(fit_fold(to(X[a]), torch.tensor(y[a]), to(X[b]), torch.tensor(y[b])))
    return {"mean_acc": sum(scores) / 5, "min_acc": min(scores)}


def healthy(m):
    return m["mean_acc"] > 0.93
