import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Dropout stays on in evaluation on purpose: twenty answers give an interval")


class Uncertain(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 64), nn.Linear(64, 1)

    def forward(self, x):
        return self.out(F.dropout(torch.relu(self.hidden(x)), 0.1))


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(300, 3)
    y = x.sum(1, keepdim=True).sin() + 0.1 * torch.randn(300, 1)
    net = Uncertain()
    opt = torch.optim.Adam(net.parameters(), 5e-3)
    for epoch in range(10):
        net.train()
        for rows in torch.randperm(240).split(24):
            opt.zero_grad()
            F.mse_loss(net(x[rows]), y[rows]).backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            answers = torch.stack([net(x[240:]) for _ in range(20)])
    return {"width": answers.std(0).mean().item()}
