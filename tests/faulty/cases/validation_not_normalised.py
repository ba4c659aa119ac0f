import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Training features are standardised, validation features are handed over raw",
    faults=["losses.generalisation_gap", "losses.overfitting"],
    where="",
    style="regression, class with fit and score",
)


class Model:
    def __init__(self):
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
        self.opt = torch.optim.Adam(self.net.parameters(), lr=5e-3)

    def fit(self, x, y):
        self.net.train()
        for rows in torch.randperm(len(x)).split(50):
            loss = F.mse_loss(self.net(x[rows]), y[rows])
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()

    @torch.no_grad()
    def score(self, x, y):
        self.net.eval()
        return F.mse_loss(self.net(x), y).item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    raw = torch.rand(900, 8) * 40 + 100
    y = (raw[:, :1] - raw[:, 1:2]) * 20 + (raw[:, 2:3] - 120) * (raw[:, 3:4] - 110)
    y = (y - y.mean()) / y.std()
    train_x, val_x = raw[:700], raw[700:]
    mean, std = train_x.mean(0), train_x.std(0)
    model = Model()
    for epoch in range(15):
        model.fit((train_x - mean) / std, y[:700])
        val = model.score((val_x - mean) / std if fixed else val_x, y[700:])
    return {"val_mse": val}
