import torch
from torch import nn

META = dict(
    title="A wide net on sixty samples, trained long after the validation loss has turned",
    faults=["losses.overfitting"],
    where="",
    style="epochs, evaluate() under no_grad, nn.CrossEntropyLoss",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    centres = torch.randn(4, 16) * 0.9
    labels = torch.randint(0, 4, (1500,))
    inputs = centres[labels] + 2.2 * torch.randn(1500, 16)
    size = 1200 if fixed else 60
    x, y, xv, yv = inputs[:size], labels[:size], inputs[1200:], labels[1200:]
    width = 16 if fixed else 256
    net = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Dropout(0.3 if fixed else 0.0), nn.Linear(width, 4))
    criterion = nn.CrossEntropyLoss()
    opt = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.1 if fixed else 0.0)
    for epoch in range(20 if fixed else 150):
        net.train()
        for i in torch.randperm(size).split(30):
            opt.zero_grad()
            criterion(net(x[i]), y[i]).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            val = criterion(net(xv), yv).item()
    return {"val_loss": val}
