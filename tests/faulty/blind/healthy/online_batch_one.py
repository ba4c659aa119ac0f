import torch
from sklearn.datasets import load_iris
from torch import nn

META = dict(title="Online learning, one flower per update, GroupNorm",
            looks_like="batch size one, very noisy loss, gradient norm varies by orders", family="healthy")


def train(seed):
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    X, y = load_iris(return_X_y=True)
    X, y = torch.tensor(X).float(), torch.tensor(y)
    X = (X - X.mean(0)) / X.std(0)
    p = torch.randperm(150, generator=g)
    tr, te = p[:120], p[120:]
    net = nn.Sequential(nn.Linear(4, 24), nn.GroupNorm(4, 24), nn.ReLU(), nn.Linear(24, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.5)
    loss_avg = None
    for ep in range(3):
        for k in tr[torch.randperm(120, generator=g)]:
            loss = nn.functional.cross_entropy(net(X[k:k + 1]), y[k:k + 1])
            opt.zero_grad(); loss.backward(); opt.step()
            loss_avg = loss.item() if loss_avg is None else 0.98 * loss_avg + 0.02 * loss.item()
    return {"loss_avg": loss_avg, "acc": (net(X[te]).argmax(1) == y[te]).float().mean().item()}
