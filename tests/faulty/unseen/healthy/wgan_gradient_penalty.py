import torch
import torch.nn as nn

META = dict(title="WGAN-GP: four critic steps for one generator step, gradient penalty by double backward",
            looks_like="losses without bound below, negative, not decreasing; autograd.grad inside the loop; generator gets gradients that are thrown away", family="healthy")


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(2, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 1))

    def forward(self, x):
        return self.f(x)


def penalty(critic, real, fake):
    a = torch.rand(len(real), 1)
    mid = (a * real + (1 - a) * fake).requires_grad_(True)
    g, = torch.autograd.grad(critic(mid).sum(), mid, create_graph=True)
    return ((g.norm(2, dim=1) - 1) ** 2).mean()


def data(n):
    ang = torch.rand(n) * 2 * torch.pi
    return torch.stack([2 * ang.cos() + 1, 2 * ang.sin()], 1) + 0.1 * torch.randn(n, 2)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    gen = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2))
    critic = Critic()
    opt_g = torch.optim.Adam(gen.parameters(), lr=2e-3, betas=(0.0, 0.9))
    opt_c = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.0, 0.9))
    for it in range(140):
        for _ in range(4):
            real = data(64)
            fake = gen(torch.randn(64, 4)).detach()
            lc = critic(fake).mean() - critic(real).mean() + 5 * penalty(critic, real, fake)
            opt_c.zero_grad()
            lc.backward()
            opt_c.step()
        lg = -critic(gen(torch.randn(64, 4))).mean()
        opt_g.zero_grad()
        lg.backward()
        opt_g.step()
    with torch.no_grad():
        s = gen(torch.randn(2000, 4))
        r = ((s - torch.tensor([1.0, 0.0])).norm(dim=1))
    return {"mean_radius": r.mean().item(), "centre": s.mean(0).sub(torch.tensor([1.0, 0.0])).norm().item()}


def healthy(m):
    return 1.3 < m["mean_radius"] < 2.7 and m["centre"] < 1.0
