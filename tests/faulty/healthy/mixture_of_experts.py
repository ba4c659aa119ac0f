import torch
from torch import nn

META = dict(title="Hard routing: an expert without a row in a batch gets no gradient in that step", looks_like="gradients None in some steps")


class MoE(nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.gate = nn.Linear(5, n)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 1)) for _ in range(n))

    def forward(self, x):
        p = self.gate(x).softmax(1)
        top = p.argmax(1)
        out = torch.zeros(len(x), 1)
        for k in top.unique().tolist():
            rows = top == k
            out[rows] = self.experts[k](x[rows]) * p[rows, k : k + 1]
        return out


def train(seed):
    torch.manual_seed(seed)
    net = MoE()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(250):
        x = torch.randn(12, 5)
        loss = nn.functional.mse_loss(net(x), x[:, :1].abs() + x[:, 1:2])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
