import torch
from torch import nn

META = dict(
    title="Clipping before the loss scale is taken out",
    faults=["calls.misordered_calls"],
    where="clip",
    style="GradScaler on the CPU",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    w = torch.randn(16, 4)
    net = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for _ in range(200):
        x = torch.randn(64, 16)
        y = (x @ w).argmax(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if fixed:
            scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
    return {"loss": loss.item()}
