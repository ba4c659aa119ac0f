import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Adversarial training: the loss on attacked samples stays far above the validation loss on clean ones"
)


def train(seed):
    torch.manual_seed(seed)
    y = torch.randint(0, 3, (500,))
    x = 2.0 * torch.randn(3, 20)[y] + 0.5 * torch.randn(500, 20)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(10):
        net.train()
        for i in torch.randperm(400).split(25):
            probe = x[i].clone().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(net(probe), y[i]), probe)
            loss = F.cross_entropy(net(x[i] + 1.5 * slope.sign()), y[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            clean = F.cross_entropy(net(x[400:]), y[400:]).item()
    return {"clean": clean}
