import torch
from torch import nn

META = dict(title="Probabilities in a squared error and in a dice loss", looks_like="softmax before a loss")


def dice(p, y):
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.randn(12, 1, 8, 8)
        y = (nn.functional.avg_pool2d(x, 3, 1, 1) > 0.1).long()[:, 0]
        p = net(x).softmax(1)
        hot = nn.functional.one_hot(y, 2).movedim(-1, 1).float()
        loss = nn.functional.mse_loss(p, hot) + 0.5 * dice(torch.sigmoid(net(x)[:, 1]), hot[:, 1])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
