import torch
from torch import nn

META = dict(
    title="float16 autocast without a GradScaler: a mean over many small errors has gradients below float16's smallest number",
    faults=["precision.underflow"],
    where="weight",
    style="amp, autoencoder of small values",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 256))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3, eps=1e-12)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, enabled=fixed)
    basis = torch.randn(4, 256)
    for step in range(120):
        x = torch.randn(128, 4) @ basis
        with torch.autocast("cpu", dtype=torch.float16):
            out = net(x)
        loss = nn.functional.mse_loss(1e-3 * out.float(), 1e-3 * x)
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()
    return {"loss": loss.item()}
