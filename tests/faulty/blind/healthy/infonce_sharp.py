import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(title="Contrastive learning, logits divided by a sharp temperature, batch entries are each other's negatives",
            looks_like="logits in the tens, samples of a batch interact in the loss, loss starts over log(N)", family="healthy")


def views(x):
    x = x.view(-1, 8, 8)
    return (x + 0.12 * torch.randn_like(x)).flatten(1) * (torch.rand(len(x), 64) > 0.15)


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16).float(), torch.tensor(d.target)
    f = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 24))
    opt = torch.optim.AdamW(f.parameters(), lr=3e-3, weight_decay=1e-4)
    hist = []
    for it in range(300):
        b = x[torch.randperm(len(x))[:96]]
        u, v = F.normalize(f(views(b)), dim=1), F.normalize(f(views(b)), dim=1)
        s = u @ v.T / 0.07
        t = torch.arange(len(b))
        loss = (F.cross_entropy(s, t) + F.cross_entropy(s.T, t)) / 2
        opt.zero_grad(); loss.backward(); opt.step()
        hist.append(loss.item())
    with torch.no_grad():
        e = F.normalize(f(x), dim=1)
        sim = e @ e.T - 2 * torch.eye(len(x))
        knn = (y[sim.argmax(1)] == y).float().mean().item()
    return {"first": hist[0], "last": sum(hist[-20:]) / 20, "knn": knn}
