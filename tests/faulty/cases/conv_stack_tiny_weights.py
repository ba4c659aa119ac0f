import torch
from torch import nn

META = dict(
    title="Nine convolutions without normalisation, all weights drawn with std 0.002",
    faults=["activations.spread", "gradients.vanishing"],
    where="",
    style="conv net, init by apply()",
)


def small(module):
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(module.weight, std=0.002)
        nn.init.zeros_(module.bias)


def kaiming(module):
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    blocks = [layer for k in range(8) for layer in (nn.Conv2d(1 if k == 0 else 12, 12, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3))
    net.apply(kaiming if fixed else small)
    y = torch.randint(0, 3, (240,))
    x = 0.2 * torch.randn(240, 1, 6, 6) + y.view(-1, 1, 1, 1).float() - 1
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(150):
        i = torch.randint(0, 240, (24,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
