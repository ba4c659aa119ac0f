import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Distillation: trained on a teacher's soft answers, validated on hard labels")


def train(seed):
    torch.manual_seed(seed)
    y = torch.randint(0, 5, (600,))
    x = torch.randn(5, 16)[y] + 0.9 * torch.randn(600, 16)
    teacher = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 5))
    student = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5))
    for net, steps in ((teacher, 120), (student, 200)):
        opt = torch.optim.Adam(net.parameters(), lr=5e-3)
        for step in range(steps):
            i = torch.randint(0, 480, (40,))
            if net is teacher:
                loss = F.cross_entropy(net(x[i]), y[i])
            else:
                with torch.no_grad():
                    soft = F.softmax(teacher(x[i]) / 2, 1)
                loss = F.kl_div(F.log_softmax(net(x[i]) / 2, 1), soft, reduction="batchmean") * 4
            opt.zero_grad()
            loss.backward()
            opt.step()
            if step % 20 == 19:
                with torch.no_grad():
                    val = F.cross_entropy(net(x[480:]), y[480:]).item()
    return {"val": val}
