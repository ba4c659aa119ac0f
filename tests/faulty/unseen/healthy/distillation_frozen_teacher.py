import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(title="Distillation: frozen eval-mode teacher, student learns from soft targets at temperature 4",
            looks_like="a network in eval mode without gradients in every training step; loss scaled by T^2 starts large", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    teacher = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))
    opt = torch.optim.Adam(teacher.parameters(), lr=4e-3)
    for _ in range(180):
        i = torch.randint(0, 1400, (64,))
        opt.zero_grad()
        F.cross_entropy(teacher(x[i]), y[i]).backward()
        opt.step()
    teacher.eval().requires_grad_(False)
    student = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))
    opt_s = torch.optim.Adam(student.parameters(), lr=5e-3)
    T = 4.0
    for _ in range(300):
        i = torch.randint(0, 1400, (64,))
        soft = F.softmax(teacher(x[i]) / T, 1)
        out = student(x[i])
        loss = F.kl_div(F.log_softmax(out / T, 1), soft, reduction="batchmean") * T * T + 0.3 * F.cross_entropy(out, y[i])
        opt_s.zero_grad()
        loss.backward()
        opt_s.step()
    with torch.no_grad():
        return {"student_acc": (student(x[1400:]).argmax(1) == y[1400:]).float().mean().item(),
                "teacher_acc": (teacher(x[1400:]).argmax(1) == y[1400:]).float().mean().item()}


def healthy(m):
    return m["student_acc"] > 0.85
