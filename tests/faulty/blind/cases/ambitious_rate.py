import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["updates.update_scale"],
    title="Digits CNN with Adam at a rate of 0.15",
    words=["learning rate too high", "loss oscillates", "step size too large", "unstable training"],
    where="",
    shows="loss jumps up and down above one and never settles",
)


def closure_factory(model, opt):
    crit = nn.CrossEntropyLoss()

    def step(x, y):
        opt.zero_grad()
        loss = crit(model(x), y)
        loss.backward()
        opt.step()
        return loss.item()
    return step


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.images / 16).float()[:, None][p], torch.tensor(d.target)[p]
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.LeakyReLU(0.1), nn.Conv2d(8, 16, 3), nn.LeakyReLU(0.1), nn.Flatten(), nn.Linear(256, 32), nn.LeakyReLU(0.1), nn.Linear(32, 10))
    step = closure_factory(model, torch.optim.Adam(model.parameters(), lr=3e-3 if fixed else 1.5e-1))
    h = []
    for ep in range(7):
        for xb, yb in DataLoader(TensorDataset(x[:1400], y[:1400]), 40, shuffle=True):
            h.append(step(xb, yb))
    t = torch.tensor(h[-60:])
    with torch.no_grad():
        acc = (model(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"first": h[0], "mean_last": t.mean().item(), "std_last": t.std().item(), "acc": acc}
