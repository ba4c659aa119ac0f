import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="GRU without batch_first reads one sensor's batch as time", faults=["model.batch_mixing"], where="gru"
)


class Activity(nn.Module):
    def __init__(self, fixed):
        super().__init__()
        self.gru = nn.GRU(4, 24, batch_first=fixed)
        self.out = nn.Linear(24, 1)

    def forward(self, x):
        seen, _ = self.gru(x)
        return self.out(seen[:, -1]).squeeze(-1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(512, 12, 4)
    y = x[:, -4:, 0].sum(1) + 0.5 * x[:, -1, 1] + 0.05 * torch.randn(512)
    net = Activity(fixed)
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    for _ in range(6):
        for xb, yb in loader:
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(xb), yb)
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
