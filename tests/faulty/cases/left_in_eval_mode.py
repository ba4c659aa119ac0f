import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="Validation leaves the model in eval mode",
    faults=["calls.misordered_calls"],
    where="eval",
    style="Trainer class, BatchNorm and dropout",
)


class Trainer:
    def __init__(self, model, restore):
        self.model, self.restore = model, restore
        self.opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
        self.lossf = nn.CrossEntropyLoss()

    def fit(self, train, val, epochs):
        self.model.train()
        for _ in range(epochs):
            for x, y in train:
                loss = self.lossf(self.model(x), y)
                self.opt.zero_grad()
                loss.backward()
                self.opt.step()
            self.validate(val)
        return self.validate(val)

    @torch.no_grad()
    def validate(self, val):
        self.model.eval()
        total = sum(self.lossf(self.model(x), y).item() for x, y in val)
        if self.restore:
            self.model.train()
        return total / len(val)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(900, 10)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(10, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 2))
    sets = [TensorDataset(x[:700], y[:700]), TensorDataset(x[700:], y[700:])]
    loaders = [DataLoader(sets[0], 50, shuffle=True), DataLoader(sets[1], 100)]
    return {"val": Trainer(model, fixed).fit(*loaders, epochs=8)}
