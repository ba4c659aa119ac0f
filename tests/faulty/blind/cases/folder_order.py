import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["batches.sorted_labels"],
    title="Image folder read class by class, loader without shuffle",
    words=["data sorted by class", "shuffle missing", "no shuffling", "one class per batch"],
    where="",
    shows="each batch holds a single class, training loss saws, validation only knows the last classes",
)


def read_folders():
    d = load_digits()
    xs, ys, vx, vy = [], [], [], []
    for label in range(10):
        imgs = torch.tensor(d.images[d.target == label] / 8.0 - 1).float()[:, None]
        xs.append(imgs[:140]); ys += [label] * 140
        vx.append(imgs[140:]); vy += [label] * (len(imgs) - 140)
    return TensorDataset(torch.cat(xs), torch.tensor(ys)), torch.cat(vx), torch.tensor(vy)


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.c = nn.Linear(64, 10)

    def forward(self, x):
        return self.c(self.f(x).flatten(1))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    ds, vx, vy = read_folders()
    loader = DataLoader(ds, batch_size=28, shuffle=fixed)
    model = CNN()
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    accs = []
    for epoch in range(4):
        model.train()
        tot = 0.0
        for x, y in loader:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            tot += loss.item()
        model.eval()
        with torch.no_grad():
            accs.append((model(vx).argmax(1) == vy).float().mean().item())
    return {"epoch_loss": tot / len(loader), "val_acc": accs[-1]}
