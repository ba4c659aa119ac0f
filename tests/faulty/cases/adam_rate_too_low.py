import torch
from torch import nn

META = dict(
    title="AdamW with lr=1e-7 on a small convolutional net",
    faults=["losses.rate_too_low", "updates.update_scale"],
    where="AdamW",
    style="conv net, config dictionary",
)
CONFIG = {"lr": 1e-7, "batch": 32, "steps": 160}


def net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )


def train(seed, fixed=False):
    torch.manual_seed(seed)
    config = {**CONFIG, "lr": 3e-3} if fixed else CONFIG
    y = torch.randint(0, 4, (512,))
    x = 0.5 * torch.randn(512, 1, 12, 12)
    for k in range(4):
        x[y == k, :, 3 * k : 3 * k + 3] += 1.0
    model = net()
    opt = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    for _ in range(config["steps"]):
        rows = torch.randint(0, 512, (config["batch"],))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
