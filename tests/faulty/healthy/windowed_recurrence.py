import torch
from torch import nn

META = dict(
    title="Backward through a window of ten steps, whose graph is kept meanwhile", looks_like="a graph that grows"
)


def train(seed):
    torch.manual_seed(seed)
    cell, head = nn.GRUCell(3, 16), nn.Linear(16, 1)
    opt = torch.optim.Adam([*cell.parameters(), *head.parameters()], 3e-3)
    h, window = torch.zeros(20, 16), []
    for k in range(1200):
        x = torch.randn(20, 3)
        h = cell(x, h)
        window.append(nn.functional.mse_loss(head(h)[:, 0], x[:, 0]))
        if k % 10 == 9:
            opt.zero_grad()
            sum(window).div(10).backward()
            opt.step()
            h, window = h.detach(), []
    return {"h": h.mean().item()}
