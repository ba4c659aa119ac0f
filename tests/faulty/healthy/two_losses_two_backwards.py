import torch
from torch import nn

META = dict(title="Two losses go backward one after the other, one step, metrics under no_grad", looks_like="gradients accumulate")


def train(seed):
    torch.manual_seed(seed)
    trunk, a, b = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.1)), nn.Linear(32, 2), nn.Linear(32, 1)
    opt = torch.optim.AdamW([*trunk.parameters(), *a.parameters(), *b.parameters()], lr=3e-3)
    for _ in range(250):
        x = torch.randn(48, 10)
        h = trunk(x)
        out = b(h)
        opt.zero_grad()
        nn.functional.cross_entropy(a(h), (x[:, 0] > x[:, 1]).long()).backward(retain_graph=True)
        loss = nn.functional.mse_loss(out, x[:, 2:3].abs())
        loss.backward()
        opt.step()
        with torch.no_grad():
            mae = nn.functional.l1_loss(out, x[:, 2:3].abs())
    return {"mae": mae.item()}
