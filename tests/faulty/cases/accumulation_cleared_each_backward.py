import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="Gradient accumulation over 4 batches, but zero_grad stands in the inner loop",
    faults=["calls.misordered_calls"],
    where="zero_grad",
    style="accumulation",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(800, 16)
    y = (x[:, :4].sum(1) > 0).long()
    loader = DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True)
    net = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 2))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    every = 4
    for _ in range(5):
        for i, (xb, yb) in enumerate(loader):
            if not fixed or i % every == 0:
                opt.zero_grad()
            loss = nn.functional.cross_entropy(net(xb), yb) / every
            loss.backward()
            if (i + 1) % every == 0:
                opt.step()
    return {"loss": loss.item() * every}
