import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

META = dict(
    faults=["losses.overfitting", "losses.generalisation_gap"],
    title="Debug subset of forty images left in the script",
    words=["overfitting", "training set too small", "overfits a tiny dataset", "memorises the training data"],
    where="",
    shows="training loss zero, validation loss grows",
)


def get_data(seed, debug):
    d = load_digits()
    x = torch.tensor(d.data / 16.0, dtype=torch.float32)
    y = torch.tensor(d.target)
    p = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    full = TensorDataset(x[p], y[p])
    tr = Subset(full, range(40 if debug else 1300))
    return tr, Subset(full, range(1300, 1797))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    tr, va = get_data(seed, debug=not fixed)
    model = nn.Sequential(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    dl = DataLoader(tr, batch_size=20, shuffle=True)
    curve, it = [], 0
    while it < 260:
        for x, y in dl:
            model.train()
            loss = nn.functional.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            it += 1
            if it % 20 == 0:
                model.eval()
                with torch.no_grad():
                    xv, yv = next(iter(DataLoader(va, 497)))
                    o = model(xv)
                    curve.append((nn.functional.cross_entropy(o, yv).item(), (o.argmax(1) == yv).float().mean().item()))
            if it >= 260:
                break
    return {"train_loss": loss.item(), "val_loss": curve[-1][0], "val_acc": curve[-1][1]}
