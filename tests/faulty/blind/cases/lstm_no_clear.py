import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["gradients.stale_gradients"],
    title="LSTM forecaster; gradients are cleared once per epoch only",
    words=["missing zero_grad", "gradients not cleared", "gradients accumulate over steps", "zero_grad outside the loop"],
    where="",
    shows="gradient norm grows inside an epoch, loss is unstable",
)


class Forecaster(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 24, batch_first=True)
        self.fc = nn.Linear(24, 1)

    def forward(self, x):
        return self.fc(self.lstm(x)[0][:, -1])


def series(n):
    f = 0.2 + 0.6 * torch.rand(n, 1)
    t = torch.arange(13.0)
    s = torch.sin(f * t + 6.28 * torch.rand(n, 1))
    return s[:, :12, None], s[:, 12:]


def run_epoch(model, dl, opt, each):
    out = []
    opt.zero_grad()
    for x, y in dl:
        if each:
            opt.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        opt.step()
        out.append(loss.item())
    return out


def train(seed, fixed=False):
    torch.manual_seed(seed)
    dl = DataLoader(TensorDataset(*series(1600)), 32, shuffle=True)
    m = Forecaster()
    opt = torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)
    h = []
    for _ in range(6):
        h += run_epoch(m, dl, opt, each=fixed)
    return {"first": h[0], "last": sum(h[-40:]) / 40}
