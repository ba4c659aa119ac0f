import torch
from sklearn.datasets import load_digits
from torch import nn

META = dict(title="Smoke test of a new architecture: memorise one batch on purpose",
            looks_like="same batch in each step, loss to zero", family="healthy")


class Res(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a, self.b = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.relu(self.a(x))))


def overfit_one_batch(model, batch, steps=120):
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = batch
    for s in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if s == 0:
            first = loss.item()
    return first, loss.item(), (model(x).argmax(1) == y).float().mean().item()


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    i = torch.randperm(1797)[:32]
    batch = torch.tensor(d.images / 16).float()[i][:, None], torch.tensor(d.target)[i]
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), Res(12), nn.MaxPool2d(2), Res(12), nn.Flatten(), nn.Linear(192, 10))
    first, last, acc = overfit_one_batch(model, batch)
    return {"first": first, "last": last, "batch_acc": acc}
