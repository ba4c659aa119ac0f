import torch
from torch import nn

META = dict(
    title="scaler.update() is missing: the first overflow makes it skip for ever", faults=["gradients.nonfinite"], where=""
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    sc = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    w = torch.randn(12, 3)
    for _ in range(150):
        x = torch.randn(64, 12) * 20
        with torch.autocast("cpu", dtype=torch.float16):
            l = nn.functional.cross_entropy(net(x).float(), (x @ w).argmax(1))
        opt.zero_grad()
        sc.scale(l).backward()
        sc.step(opt)
        if fixed:
            sc.update()
        else:
            sc._per_optimizer_states.clear() if hasattr(sc, "_per_optimizer_states") else None
    return {"loss": l.item()}
