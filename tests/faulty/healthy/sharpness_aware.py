import torch
from torch import nn

META = dict(title="SAM: two backwards a step, an optimizer around an optimizer", looks_like="nested steps, gradients used twice")


class SAM(torch.optim.Optimizer):
    def __init__(self, params, rho=0.05, **kw):
        super().__init__(params, dict(rho=rho, **kw))
        self.base = torch.optim.SGD(self.param_groups, **kw)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def climb(self):
        norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()
        for g in self.param_groups:
            for p in g["params"]:
                e = p.grad * (0.05 / (norm + 1e-12))
                p.add_(e)
                self.state[p]["e"] = e
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                p.sub_(self.state[p]["e"])
        self.base.step()
        self.zero_grad()


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 3))
    opt = SAM(net.parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(10, 3)
    for _ in range(150):
        x = torch.randn(40, 10)
        y = (x @ w).argmax(1)
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        opt.climb()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    return {"loss": loss.item()}
