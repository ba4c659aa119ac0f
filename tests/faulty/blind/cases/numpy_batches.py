import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

META = dict(
    faults=["model.unlearnable_labels"],
    title="Features and labels shuffled by two different permutations",
    words=["labels misaligned with inputs", "inputs shuffled apart from labels", "shuffled separately", "labels do not belong to the inputs"],
    where="",
    shows="loss stays at log(10), accuracy is chance, a single frozen batch can be memorised",
)


def epoch_batches(X, y, rng, bs, same):
    i = rng.permutation(len(X))
    j = i if same else rng.permutation(len(y))
    X, y = X[i], y[j]
    for k in range(0, len(X), bs):
        yield torch.from_numpy(X[k:k + bs]), torch.from_numpy(y[k:k + bs])


def train(seed, fixed=False):
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    X, y = load_digits(return_X_y=True)
    X = ((X - X.mean()) / X.std()).astype("float32")
    tr = rng.permutation(len(X))
    va, tr = tr[:350], tr[350:]
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.BatchNorm1d(96), nn.Linear(96, 10))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(8):
        net.train()
        tot = []
        for xb, yb in epoch_batches(X[tr], y[tr], rng, 48, fixed):
            loss = nn.functional.cross_entropy(net(xb), yb)
            opt.zero_grad(); loss.backward(); opt.step()
            tot.append(loss.item())
    net.eval()
    with torch.no_grad():
        acc = (net(torch.from_numpy(X[va])).argmax(1).numpy() == y[va]).mean()
    return {"loss": sum(tot) / len(tot), "val_acc": float(acc)}
