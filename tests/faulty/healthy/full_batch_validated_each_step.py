import torch
from torch import nn

META = dict(title="Full-batch gradient descent, validated after every step", looks_like="as many evaluations as steps")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(120, 6)
    y = (x[:, 0] - x[:, 1] > 0).long()
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.3)
    best = 9.0
    for epoch in range(150):
        net.train()
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x[:90]), y[:90])
        loss.backward()
        opt.step()
        net.eval()
        with torch.no_grad():
            best = min(best, nn.functional.cross_entropy(net(x[90:]), y[90:]).item())
    return {"best": best}
