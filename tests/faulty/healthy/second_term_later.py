import torch
from torch import nn

META = dict(title="A second loss term joins after a third of the run and doubles the loss", looks_like="loss jump that never comes back")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(8, 48), nn.GELU(), nn.Linear(48, 4))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
    w = torch.randn(8, 3)
    for step in range(300):
        x = torch.randn(48, 8)
        out = net(x)
        loss = nn.functional.cross_entropy(out[:, :3], (x @ w).argmax(1))
        if step >= 100:
            loss = loss + 2 * nn.functional.smooth_l1_loss(out[:, 3], x.norm(dim=1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
