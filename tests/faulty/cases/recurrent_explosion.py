import torch
from torch import nn

META = dict(
    title="A hand-written recurrent cell over 60 steps, without clipping",
    faults=["gradients.explosion"],
    where="cell",
    style="custom RNN cell, momentum",
)


class Cell(nn.Module):
    def __init__(self, n=24):
        super().__init__()
        self.inp = nn.Linear(2, n)
        self.rec = nn.Linear(n, n, bias=False)
        nn.init.eye_(self.rec.weight)

    def forward(self, x, h):
        return torch.relu(self.inp(x) + self.rec(h))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    cell, head = Cell(), nn.Linear(24, 1)
    params = [*cell.parameters(), *head.parameters()]
    opt = torch.optim.SGD(params, lr=0.01, momentum=0.9)
    for _ in range(120):
        x = torch.rand(16, 60, 2)
        y = x[:, :, 0].sum(1, keepdim=True)
        h = torch.zeros(16, 24)
        for t in range(60):
            h = cell(x[:, t], h)
        loss = nn.functional.mse_loss(head(h), y)
        opt.zero_grad()
        loss.backward()
        if fixed:
            nn.utils.clip_grad_norm_(params, 0.5)
        opt.step()
    return {"loss": loss.item()}
