import torch
from torch import nn

META = dict(
    title="A distance whose gradient is NaN at zero: the scaler halves its scale at every step",
    faults=["precision.loss_scale"],
    where="GradScaler",
    style="amp, consistency term",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    w = torch.randn(12, 3)
    for _ in range(120):
        x = torch.randn(64, 12)
        with torch.autocast("cpu", dtype=torch.float16):
            out, again = net(x), net(x.clone())
        loss = nn.functional.cross_entropy(out.float(), (x @ w).argmax(1))
        apart = (out.float() - again.float()).square().sum(1)
        loss = loss + 0.1 * torch.sqrt(apart + (1e-8 if fixed else 0.0)).mean()
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    return {"loss": loss.item()}
