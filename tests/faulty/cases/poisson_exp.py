import torch
from torch import nn

META = dict(
    title="Poisson regression on raw counts features, exp overflows",
    faults=["gradients.nonfinite", "gradients.explosion", "updates.update_scale", "losses.loss_divergence"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.rand(400, 6) * torch.tensor([1.0, 10, 100, 50, 5, 1])
    y = torch.poisson(torch.exp(0.01 * x.sum(1, keepdim=True)))
    if fixed:
        x = (x - x.mean(0)) / x.std(0)
    net = nn.Linear(6, 1)
    nn.init.zeros_(net.weight)
    opt = torch.optim.SGD(net.parameters(), lr=1e-2)
    for k in range(200):
        i = torch.randint(0, 400, (32,))
        z = net(x[i])
        loss = (z.exp() - y[i] * z).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
