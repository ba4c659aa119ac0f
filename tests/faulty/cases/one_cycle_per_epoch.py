import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="OneCycleLR with steps_per_epoch, stepped once an epoch: the rate never leaves its start",
    faults=["calls.misordered_calls"],
    where="scheduler",
    style="DataLoader, fit function",
)


def fit(model, loader, epochs, fixed):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scheduler = OneCycleLR(optimizer, max_lr=1e-2, epochs=epochs, steps_per_epoch=len(loader))
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if fixed:
                scheduler.step()
        if not fixed:
            scheduler.step()
    return loss.item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(640, 24)
    y = (x @ torch.randn(24, 6)).argmax(1)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 6))
    return {"loss": fit(model, loader, 10, fixed)}
