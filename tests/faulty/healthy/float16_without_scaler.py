import torch
from torch import nn

META = dict(
    title="float16 autocast without a GradScaler, with gradients large enough for it; some units are dead",
    looks_like="half precision without a loss scale",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 3))
    with torch.no_grad():
        net[0].bias[:20] = -50.0
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    w = torch.randn(12, 3)
    for _ in range(150):
        x = torch.randn(32, 12)
        with torch.autocast("cpu", dtype=torch.float16):
            out = net(x)
        loss = nn.functional.cross_entropy(out.float(), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
