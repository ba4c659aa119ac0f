import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["losses.rate_too_low"],
    title="Fine-tuning rate copied from a large model onto a net trained from scratch",
    words=["learning rate too low", "learning rate far too small", "weights hardly move", "step size too small"],
    where="",
    shows="loss line is almost flat, update-to-weight ratio tiny",
)
HP = {"lr": 1e-6, "wd": 0.01, "batch_size": 32, "epochs": 12}


def train(seed, fixed=False):
    torch.manual_seed(seed)
    hp = dict(HP)
    if fixed:
        hp["lr"] = 1e-3
    d = load_breast_cancer()
    x = torch.tensor(d.data).float()
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(d.target)
    p = torch.randperm(len(y))
    x, y = x[p], y[p]
    dl = DataLoader(TensorDataset(x[:420], y[:420]), hp["batch_size"], shuffle=True, drop_last=True)
    net = nn.Sequential(nn.Linear(30, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 2))
    opt = torch.optim.AdamW(net.parameters(), lr=hp["lr"], weight_decay=hp["wd"])
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, hp["epochs"], eta_min=hp["lr"] / 10)
    means = []
    for e in range(hp["epochs"]):
        s = 0
        for xb, yb in dl:
            loss = nn.functional.cross_entropy(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            s += loss.item()
        sched.step()
        means.append(s / len(dl))
    with torch.no_grad():
        acc = (net(x[420:]).argmax(1) == y[420:]).float().mean().item()
    return {"first": means[0], "last": means[-1], "acc": acc}
