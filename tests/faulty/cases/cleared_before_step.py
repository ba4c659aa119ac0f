import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="zero_grad sits between backward and step",
    faults=["calls.misordered_calls"],
    where="zero_grad",
    style="DataLoader, criterion object",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(640, 12)
    y = (x[:, :3].sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 2))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(8):
        for xb, yb in DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True):
            loss = criterion(model(xb), yb)
            if fixed:
                optimizer.zero_grad()
            loss.backward()
            if not fixed:
                optimizer.zero_grad()
            optimizer.step()
    return {"loss": loss.item()}
