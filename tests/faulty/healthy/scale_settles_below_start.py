import torch
from torch import nn

META = dict(
    title="A scaler that grows every twenty steps and falls again: its scale oscillates under an overflow at 2**16",
    looks_like="many skipped steps, a loss scale that falls again and again",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 1))
    opt = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=20)
    w = torch.randn(12, 1)
    for _ in range(240):
        x = torch.randn(64, 12)
        with torch.autocast("cpu", dtype=torch.float16):
            out = net(x)
        loss = nn.functional.mse_loss(out.float(), 3 * x @ w)
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    return {"loss": loss.item()}
