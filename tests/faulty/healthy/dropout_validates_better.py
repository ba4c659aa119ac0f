import torch
from torch import nn

META = dict(
    title="Strong dropout, noise on the inputs and label smoothing: validation is better than training all along"
)


def train(seed):
    torch.manual_seed(seed)
    centres = torch.randn(6, 20)
    y = torch.randint(0, 6, (900,))
    x = centres[y] + 0.7 * torch.randn(900, 20)
    net = nn.Sequential(nn.Dropout(0.3), nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 6))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(12):
        net.train()
        for i in torch.randperm(700).split(50):
            loss = smooth(net(x[i] + 0.8 * torch.randn(len(i), 20)), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            val = nn.functional.cross_entropy(net(x[700:]), y[700:]).item()
    return {"val": val}
