import torch
from torch import nn

META = dict(
    title="Actor-critic: critic.zero_grad is called twice, the actor's never",
    faults=["gradients.stale_gradients"],
    where="optimizer 0",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    actor = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
    critic = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 1))
    oa, oc = torch.optim.Adam(actor.parameters(), 1e-3), torch.optim.Adam(critic.parameters(), 3e-3)
    w = torch.randn(4, 3)
    for _ in range(200):
        s = torch.randn(32, 4)
        d = torch.distributions.Categorical(logits=actor(s))
        a = d.sample()
        r = (s @ w)[torch.arange(32), a]
        v = critic(s).squeeze(1)
        pl = -(d.log_prob(a) * (r - v.detach())).mean()
        (oa if fixed else oc).zero_grad()
        pl.backward()
        oa.step()
        vl = (v - r).pow(2).mean()
        oc.zero_grad()
        vl.backward()
        oc.step()
    return {"r": r.mean().item()}
