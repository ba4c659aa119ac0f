import torch
from torch import nn

META = dict(title="float16 with a huge first loss scale: the scaler skips the first steps", looks_like="infinite gradients at the start")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 3))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 200)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    w = torch.randn(12, 3)
    for _ in range(200):
        x = torch.randn(64, 12)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = nn.functional.cross_entropy(net(x).float(), (x @ w).argmax(1))
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
        sched.step()
    return {"loss": loss.item()}
