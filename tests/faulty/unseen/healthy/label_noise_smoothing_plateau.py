import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="40% label noise plus label smoothing: the training loss settles near 2 although the net is good on clean labels",
            looks_like="loss plateau close to ln(10)", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    noisy = torch.where(torch.rand(1797) < 0.4, torch.randint(0, 10, (1797,)), y)
    net = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Dropout(0.2), nn.Linear(40, 10))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-3)
    crit = nn.CrossEntropyLoss(label_smoothing=0.15)
    hist = []
    for step in range(450):
        i = torch.randint(0, 1400, (100,))
        loss = crit(net(x[i]), noisy[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    net.eval()
    with torch.no_grad():
        acc = (net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"loss": sum(hist[-30:]) / 30, "clean_acc": acc}


def healthy(m):
    return m["loss"] > 1.5 and m["clean_acc"] > 0.83
