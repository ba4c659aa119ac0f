import copy

import torch
from torch import nn

META = dict(title="Distillation: the teacher is kept in a list so that it is in no state_dict, and runs under no_grad", looks_like="hidden layers in no optimizer")


class Student(nn.Module):
    def __init__(self, teacher):
        super().__init__()
        self.kept = [teacher]
        self.net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        with torch.no_grad():
            soft = self.kept[0](x).softmax(1)
        return nn.functional.kl_div(self.net(x).log_softmax(1), soft, reduction="batchmean")


def train(seed):
    torch.manual_seed(seed)
    teacher = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        teacher[2].weight.mul_(6)
    student = Student(copy.deepcopy(teacher))
    opt = torch.optim.Adam(student.parameters(), lr=5e-3)
    for _ in range(200):
        loss = student(torch.randn(48, 10))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
