import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(title="Curriculum: sequences get longer and noisier in three stages, the loss jumps at each stage",
            looks_like="loss spikes at steps 150 and 300, final loss above the loss of the first stage", family="healthy")


class SignNet(nn.Module):
    def __init__(self, h=32):
        super().__init__()
        self.gru = nn.GRU(1, h, batch_first=True)
        self.out = nn.Linear(h, 1)

    def forward(self, x):
        return self.out(self.gru(x)[0][:, -1]).squeeze(1)


STAGES = [(4, 0.0), (8, 0.15), (12, 0.35)]


def make(n, length, noise):
    x = torch.randn(n, length, 1)
    y = (x.sum((1, 2)) > 0).float()
    return x + noise * torch.randn_like(x), y


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    model = SignNet()
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    ends = []
    for length, noise in STAGES:
        tail = []
        for step in range(150):
            x, y = make(64, length, noise)
            loss = F.binary_cross_entropy_with_logits(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            tail.append(loss.item())
        ends.append(sum(tail[-15:]) / 15)
    x, y = make(1000, *STAGES[-1])
    with torch.no_grad():
        acc = ((model(x) > 0) == (y > 0.5)).float().mean().item()
    return {"stage1": ends[0], "stage3": ends[2], "acc": acc}


def healthy(m):
    return m["acc"] > 0.85
