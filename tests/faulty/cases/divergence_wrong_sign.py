import torch
from torch import nn

META = dict(title="The KL term has the wrong sign, the loss runs to minus infinity", faults=["losses.loss_divergence", "gradients.nonfinite", "gradients.explosion"], where="", style="VAE")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    enc, dec = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8)), nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 12))
    opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=5e-3)
    mix = torch.randn(4, 12)
    for _ in range(250):
        x = torch.randn(64, 4) @ mix
        mu, logvar = enc(x).chunk(2, 1)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp()
        kl = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(1).mean()
        loss = ((dec(z) - x) ** 2).sum(1).mean() + (0.3 * kl if fixed else -0.3 * kl)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
