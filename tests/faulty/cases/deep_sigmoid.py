import torch
from torch import nn

META = dict(
    title="Twelve sigmoid layers: no gradient reaches the first",
    faults=["gradients.vanishing"],
    where="0",
    style="loop over layers in Sequential",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    act = nn.ReLU if fixed else nn.Sigmoid
    layers = [nn.Linear(16, 24), act()]
    for _ in range(11):
        layers += [nn.Linear(24, 24), act()]
    net = nn.Sequential(*layers, nn.Linear(24, 3))
    if fixed:
        for m in net:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight)
    x = torch.randn(600, 16)
    y = (x @ torch.randn(16, 3)).argmax(1)
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(200):
        i = torch.randint(0, 600, (64,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
