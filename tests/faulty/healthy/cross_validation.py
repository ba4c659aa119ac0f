import torch
from torch import nn

META = dict(title="Five folds in one program: the loss jumps back to its start with each new net", looks_like="loss spikes, parameters that stop training")


def fit(x, y):
    net = nn.Sequential(nn.Linear(7, 24), nn.ReLU(), nn.Linear(24, 2))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(60):
        i = torch.randint(0, len(x), (32,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return net


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(500, 7)
    y = (x[:, 0] > x[:, 1]).long()
    scores = []
    for k in range(5):
        held = torch.arange(500) % 5 == k
        net = fit(x[~held], y[~held]).eval()
        with torch.no_grad():
            scores.append((net(x[held]).argmax(1) == y[held]).float().mean().item())
    return {"acc": sum(scores) / 5}
