import copy
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="Mean teacher: the teacher is an EMA copy, never in an optimizer, run in train mode without gradient",
            looks_like="a model in train mode under no_grad, parameters without gradient that change outside any optimizer, consistency loss rises", family="healthy")


@torch.no_grad()
def ema_update(teacher, student, decay=0.97):
    for t, s in zip(teacher.parameters(), student.parameters()):
        t.mul_(decay).add_(s, alpha=1 - decay)


def augment(x):
    return x + 0.15 * torch.randn_like(x)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.data / 16, dtype=torch.float32)[p], torch.tensor(d.target)[p]
    student = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.2), nn.Linear(96, 10))
    teacher = copy.deepcopy(student)
    for q in teacher.parameters():
        q.requires_grad_(False)
    opt = torch.optim.Adam(student.parameters(), lr=3e-3)
    for step in range(300):
        lab = torch.randint(0, 200, (32,))
        unl = torch.randint(200, 1400, (96,))
        sup = F.cross_entropy(student(augment(x[lab])), y[lab])
        with torch.no_grad():
            target = teacher(augment(x[unl])).softmax(1)
        cons = F.mse_loss(student(augment(x[unl])).softmax(1), target)
        loss = sup + min(1.0, step / 100) * 10 * cons
        opt.zero_grad()
        loss.backward()
        opt.step()
        ema_update(teacher, student)
    teacher.eval()
    with torch.no_grad():
        acc = (teacher(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"teacher_acc": acc}


def healthy(m):
    return m["teacher_acc"] > 0.85
