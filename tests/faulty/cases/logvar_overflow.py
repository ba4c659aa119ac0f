import torch
from torch import nn

META = dict(
    title="VAE encoder on unscaled pixels: exp of the log-variance overflows",
    faults=["gradients.nonfinite", "gradients.explosion", "updates.update_scale", "losses.loss_divergence"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    e = nn.Linear(30, 8)
    d = nn.Linear(4, 30)
    opt = torch.optim.SGD([*e.parameters(), *d.parameters()], lr=1e-3)
    for k in range(200):
        x = torch.rand(32, 30) * (1 if fixed else 255)
        mu, lv = e(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (lv / 2).exp()
        l = ((d(z) - x) ** 2).sum(1).mean() + 0.5 * (mu**2 + lv.exp() - lv - 1).sum(1).mean()
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
