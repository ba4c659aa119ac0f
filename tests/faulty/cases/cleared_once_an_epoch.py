import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="zero_grad stands in the epoch loop instead of the batch loop", faults=["gradients.stale_gradients"], where="", style="DataLoader, MLP, RMSprop")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(500, 14)
    y = (x[:, :7].sum(1) > 0).float()
    model = nn.Sequential(nn.Linear(14, 40), nn.ELU(), nn.Linear(40, 1))
    optim = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    crit = nn.BCEWithLogitsLoss()
    loader = DataLoader(TensorDataset(x, y), batch_size=25, shuffle=True)
    for epoch in range(10):
        optim.zero_grad()
        for features, target in loader:
            if fixed:
                optim.zero_grad()
            out = crit(model(features).squeeze(-1), target)
            out.backward()
            optim.step()
    return {"loss": out.item()}
