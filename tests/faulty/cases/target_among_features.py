import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="All columns of the table are scaled and used, that of the label too",
    faults=["model.targets_equal_inputs"],
    where="column 6",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    rooms = torch.randn(600, 6)
    sold = (rooms @ torch.tensor([1.0, 0.5, -1.0, 0.2, 0.0, 0.7]) + torch.randn(600) > 0).float()
    table = torch.cat([rooms, sold[:, None]], 1)
    table = (table - table.mean(0)) / table.std(0)
    features = table[:, :6] if fixed else table
    model = nn.Sequential(nn.Linear(features.shape[1], 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(8):
        for xb, yb in DataLoader(TensorDataset(features, sold), 32, shuffle=True):
            loss = nn.BCEWithLogitsLoss()(model(xb), yb.unsqueeze(1))
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
