import torch
from torch import nn

META = dict(
    title="SGD on unscaled features with a learning rate far above stability",
    faults=["updates.update_scale", "gradients.explosion"],
    where="SGD",
    style="bare loop, regression that ends in NaN",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.rand(500, 9) * torch.tensor([1.0, 2, 5, 10, 1, 3, 8, 2, 20])
    y = (x * 0.1).sum(1, keepdim=True) + 0.1 * torch.randn(500, 1)
    net = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.SGD(net.parameters(), lr=1e-4 if fixed else 0.1)
    for step in range(200):
        i = torch.randint(0, 500, (32,))
        loss = nn.functional.mse_loss(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
