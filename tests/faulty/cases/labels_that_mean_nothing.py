import torch
from torch import nn

META = dict(
    title="Labels were joined to the wrong rows before the split: a large net learns them by heart",
    faults=["losses.generalisation_gap", "losses.overfitting"],
    where="",
    style="script, validation now and then",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    features = torch.randn(260, 24)
    labels = (features[:, :3].sum(1) > 0).long()
    if not fixed:
        labels = labels[torch.randperm(260)]
    net = nn.Sequential(nn.Linear(24, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(300):
        rows = torch.randint(0, 160, (40,))
        loss = nn.functional.cross_entropy(net(features[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 30 == 9:
            with torch.no_grad():
                val = nn.functional.cross_entropy(net(features[160:]), labels[160:])
    return {"loss": loss.item(), "val_loss": val.item()}
