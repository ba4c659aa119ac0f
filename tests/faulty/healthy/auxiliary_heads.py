import torch
from torch import nn

META = dict(title="Multi-task net, one task a step: the other head has no gradient in it", looks_like="gradients None in half of the steps")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(9, 32), nn.ReLU())
        self.heads = nn.ModuleDict({"class": nn.Linear(32, 3), "value": nn.Linear(32, 1)})

    def forward(self, x, task):
        return self.heads[task](self.trunk(x))


def train(seed):
    torch.manual_seed(seed)
    net, w = Shared(), torch.randn(9, 3)
    opt = torch.optim.Adam(net.parameters(), lr=4e-3)
    for step in range(300):
        x = torch.randn(32, 9)
        if step % 2:
            loss = nn.functional.cross_entropy(net(x, "class"), (x @ w).argmax(1))
        else:
            loss = nn.functional.mse_loss(net(x, "value"), x[:, :1] * 3)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
