import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="Batch standardisation by hand: the last batch has one row, whose unbiased std is NaN",
    faults=["gradients.nonfinite"],
    where="",
    style="module with own normalisation, DataLoader without drop_last",
)


class Standardise(nn.Module):
    def __init__(self, unbiased):
        super().__init__()
        self.unbiased = unbiased

    def forward(self, x):
        return (x - x.mean(0)) / (x.std(0, unbiased=self.unbiased) + 1e-5)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(321, 7) * 3 + 1
    y = (x[:, 0] > x[:, 1]).float()
    net = nn.Sequential(nn.Linear(7, 32), Standardise(not fixed), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(6):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
            loss = nn.functional.binary_cross_entropy_with_logits(net(xb).squeeze(1), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
