import torch
from torch import nn

META = dict(
    title="Adam with lr=0.3: the loss comes down and is thrown up again, over and over",
    faults=["losses.oscillation", "updates.update_scale", "gradients.explosion"],
    where="",
    style="bare loop, small classes",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    centres = 1.2 * torch.randn(5, 20)
    y = torch.randint(0, 5, (600,))
    x = centres[y] + 1.4 * torch.randn(600, 20)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3 if fixed else 0.3)
    for step in range(300):
        rows = torch.randint(0, 600, (32,))
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
