import torch
from torch import nn

META = dict(
    title="Plain SGD with the learning rate that suited Adam's fine-tuning",
    faults=["losses.rate_too_low"],
    where="SGD",
    style="DataLoader, several epochs",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(640, 12)
    y = (x @ torch.randn(12, 5)).argmax(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=32, shuffle=True)
    net = nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3 if fixed else 5e-5)
    for epoch in range(8):
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(xb), yb)
            loss.backward()
            optimizer.step()
    return {"loss": loss.item()}
