import torch
import torch.nn as nn
from sklearn.datasets import load_iris

META = dict(title="Online learning, batch size 1, plain SGD",
            looks_like="loss and gradient norm vary by factors of a thousand from step to step", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    X, y = load_iris(return_X_y=True)
    order = torch.randperm(150)
    X = torch.tensor((X - X.mean(0)) / X.std(0), dtype=torch.float32)[order]
    y = torch.tensor(y)[order]
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    sgd = torch.optim.SGD(net.parameters(), lr=0.02)
    for epoch in range(8):
        for i in torch.randperm(110).tolist():
            loss = nn.functional.cross_entropy(net(X[i:i + 1]), y[i:i + 1])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    with torch.no_grad():
        acc = (net(X[110:]).argmax(1) == y[110:]).float().mean().item()
    return {"acc": acc}


def healthy(m):
    return m["acc"] > 0.85
