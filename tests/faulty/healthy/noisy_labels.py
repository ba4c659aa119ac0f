import torch
from torch import nn

META = dict(title="Half of the labels are random: the floor is close to the entropy of the labels", looks_like="plateau")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(4000, 8)
    y = (x @ torch.randn(8, 4)).argmax(1)
    y = torch.where(torch.rand(4000) < 0.5, torch.randint(0, 4, (4000,)), y)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(300):
        i = torch.randint(0, 4000, (64,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
