import torch
from torch import nn

META = dict(
    title="SGD with lr 1e-9",
    faults=["updates.update_scale"],
    where="SGD",
    style="bare loop, classification",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(400, 20)
    y = (x @ torch.randn(20, 4)).argmax(1)
    net = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.2 if fixed else 1e-9)
    for step in range(200):
        i = torch.randint(0, 400, (50,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
