import torch
from torch import nn

META = dict(title="model.zero_grad() of the wrong model", faults=["gradients.stale_gradients"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    a, b = nn.GRU(5, 16, batch_first=True), nn.Linear(16, 1)
    opt = torch.optim.Adam([*a.parameters(), *b.parameters()], lr=3e-3)
    for _ in range(150):
        x = torch.randn(24, 7, 5)
        y = x[:, :, 0].cumsum(1)[:, -1:]
        b.zero_grad()
        if fixed:
            a.zero_grad()
        loss = nn.functional.mse_loss(b(a(x)[0][:, -1]), y)
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
