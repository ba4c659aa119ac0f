import copy

import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Mean teacher: an EMA copy runs under no_grad and is in no optimizer", looks_like="parameters that never get a gradient")


def train(seed):
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Dropout(0.1), nn.Linear(40, 3))
    teacher = copy.deepcopy(student)
    opt = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(8, 3)
    for step in range(250):
        x, u = torch.randn(32, 8), torch.randn(64, 8)
        with torch.no_grad():
            soft = teacher(u).softmax(1)
        loss = F.cross_entropy(student(x), (x @ w).argmax(1)) + min(1, step / 100) * F.mse_loss(student(u).softmax(1), soft)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.no_grad():
            for t, s in zip(teacher.parameters(), student.parameters()):
                t.lerp_(s, 0.02)
    return {"loss": loss.item()}
