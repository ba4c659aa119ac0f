import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(title="Distillation: cross entropy against the teacher's softmax, and KL at temperature four",
            looks_like="softmax before a loss, teacher frozen in eval mode, loss never near zero", family="healthy")


def mlp(h):
    return nn.Sequential(nn.Linear(64, h), nn.ReLU(), nn.Linear(h, 10))


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16).float()[p], torch.tensor(d.target)[p]
    xt, yt, xv, yv = x[:1400], y[:1400], x[1400:], y[1400:]
    teacher, student = mlp(96), mlp(16)
    o = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(100):
        i = torch.randint(0, 1400, (64,))
        l = F.cross_entropy(teacher(xt[i]), yt[i])
        o.zero_grad(); l.backward(); o.step()
    teacher.eval().requires_grad_(False)
    T = 4.0
    o = torch.optim.Adam(student.parameters(), lr=8e-3)
    for _ in range(280):
        i = torch.randint(0, 1400, (64,))
        with torch.no_grad():
            soft = teacher(xt[i])
        s = student(xt[i])
        kd = F.kl_div(F.log_softmax(s / T, 1), F.softmax(soft / T, 1), reduction="batchmean") * T * T
        l = 0.5 * kd + 0.5 * F.cross_entropy(s, soft.softmax(1))
        o.zero_grad(); l.backward(); o.step()
    with torch.no_grad():
        return {"kd": kd.item(), "student_acc": (student(xv).argmax(1) == yv).float().mean().item()}
