import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["calls.misordered_calls"],
    title="Two-phase loop in which the val phase also steps the optimizer",
    words=["validation data trained on", "validation leak", "optimizer step during validation", "model trains on the validation batches"],
    where="",
    shows="validation becomes as good as or better than training, unseen test data is worse",
)


def splits(seed):
    x, y = make_classification(2000, 20, n_informative=8, flip_y=0.08, class_sep=1.5, n_clusters_per_class=2, random_state=seed)
    x, y = torch.tensor(x).float(), torch.tensor(y)
    cut = {"train": slice(0, 1200), "val": slice(1200, 1260), "test": slice(1260, 2000)}
    return {k: TensorDataset(x[c], y[c]) for k, c in cut.items()}


def fit(model, loaders, opt, epochs, guard):
    log = {"train": [], "val": []}
    for _ in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            tot = hits = n = 0
            for x, y in loaders[phase]:
                opt.zero_grad()
                out = model(x)
                loss = nn.functional.cross_entropy(out, y)
                if not guard or phase == "train":
                    loss.backward()
                    opt.step()
                tot += loss.item() * len(y)
                hits += (out.argmax(1) == y).sum().item()
                n += len(y)
            log[phase].append((tot / n, hits / n))
    return log


def train(seed, fixed=False):
    torch.manual_seed(seed)
    parts = splits(seed)
    loaders = {"train": DataLoader(parts["train"], 50, shuffle=True), "val": DataLoader(parts["val"], 10)}
    model = nn.Sequential(nn.Linear(20, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, 2))
    opt = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    log = fit(model, loaders, opt, 14, guard=fixed)
    model.eval()
    with torch.no_grad():
        x, y = parts["test"][:]
        o = model(x)
    return {"train_loss": log["train"][-1][0], "val_loss": log["val"][-1][0], "val_acc": log["val"][-1][1],
            "test_loss": nn.functional.cross_entropy(o, y).item(), "test_acc": (o.argmax(1) == y).float().mean().item()}
