import torch
from torch import nn

META = dict(title="Adversarial training: backward to the input first, then zero_grad and the real one")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for _ in range(200):
        x = torch.randn(40, 10, requires_grad=True)
        y = (x[:, 0] > 0).long()
        net.eval()
        nn.functional.cross_entropy(net(x), y).backward()
        adv = (x + 0.1 * x.grad.sign()).detach()
        net.train()
        opt.zero_grad()
        l = nn.functional.cross_entropy(net(adv), y)
        l.backward()
        opt.step()
    return {"loss": l.item()}
