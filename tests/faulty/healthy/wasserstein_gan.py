import torch
from torch import nn

META = dict(title="WGAN with weight clipping and five critic steps", looks_like="losses negative and flat, weights clipped")


def train(seed):
    torch.manual_seed(seed)
    gen = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    og = torch.optim.RMSprop(gen.parameters(), lr=5e-4)
    oc = torch.optim.RMSprop(critic.parameters(), lr=5e-4)
    for _ in range(80):
        for _ in range(5):
            real = torch.randn(32, 2) * 0.5 + torch.tensor([1.0, -1.0])
            fake = gen(torch.randn(32, 4)).detach()
            oc.zero_grad()
            (critic(fake).mean() - critic(real).mean()).backward()
            oc.step()
            for p in critic.parameters():
                p.data.clamp_(-0.1, 0.1)
        og.zero_grad()
        loss = -critic(gen(torch.randn(32, 4))).mean()
        loss.backward()
        og.step()
    return {"loss": loss.item()}
