import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.frozen_parameters"],
    title="Hand-written loss scaler that meets a non-finite gradient in every step",
    words=["loss scale keeps falling", "every optimizer step skipped", "NaN gradient from sqrt of zero", "non-finite gradient every step"],
    where="",
    shows="scale halves at each step, weights never change, loss finite",
)


class Scaler:
    def __init__(self, scale=65536.0):
        self.scale, self.good, self.skipped = scale, 0, 0

    def step(self, opt, params):
        grads = [p.grad for p in params if p.grad is not None]
        for g in grads:
            g.div_(self.scale)
        if all(torch.isfinite(g).all() for g in grads):
            opt.step()
            self.good += 1
            if self.good % 200 == 0:
                self.scale *= 2
        else:
            self.skipped += 1
            self.scale = self.scale / 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1, self.l2 = nn.Linear(10, 32), nn.Linear(32, 4)
        nn.init.zeros_(self.l2.bias)

    def forward(self, x):
        return self.l2(F.relu(self.l1(x)))


def penalty(net, eps):
    return 1e-3 * torch.sqrt((net.l2.bias ** 2).sum() + eps)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    c = torch.randn(4, 10)
    net = Net()
    params = list(net.parameters())
    opt = torch.optim.Adam(params, lr=3e-3)
    sc = Scaler()
    for it in range(120):
        y = torch.randint(0, 4, (64,))
        x = c[y] + 0.7 * torch.randn(64, 10)
        z = net(x)
        loss = F.cross_entropy(z, y) + penalty(net, 1e-8 if fixed else 0.0)
        opt.zero_grad()
        (loss * sc.scale).backward()
        sc.step(opt, params)
    return {"loss": loss.item(), "acc": (z.argmax(1) == y).float().mean().item(), "skipped": sc.skipped, "scale": sc.scale}
