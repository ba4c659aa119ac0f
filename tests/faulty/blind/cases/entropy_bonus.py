import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["gradients.nonfinite"],
    title="Policy with entropy bonus over masked actions, p * log(p)",
    words=["NaN from log(0)", "log of zero", "0 times log 0", "entropy of zero probabilities"],
    where="",
    shows="loss NaN from the first steps, all weights NaN",
)


def entropy(p, safe):
    if safe:
        return torch.special.entr(p.clamp_min(1e-8)).sum(-1)
    return -(p * p.log()).sum(-1)


class Policy(nn.Module):
    def __init__(self, n_obs, n_act):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(n_obs, 32), nn.Tanh(), nn.Linear(32, n_act))

    def forward(self, o, legal):
        return torch.softmax(self.f(o).masked_fill(~legal, -1e9), -1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    pi = Policy(6, 5)
    opt = torch.optim.Adam(pi.parameters(), 5e-3)
    W = torch.randn(6, 5)
    rew = []
    for it in range(300):
        o = torch.randn(64, 6)
        legal = torch.rand(64, 5) > 0.3
        legal[:, 0] = True
        p = pi(o, legal)
        if torch.isfinite(p).all():
            a = torch.multinomial(p, 1)
        else:
            a = torch.zeros(64, 1, dtype=torch.long)
        best = (o @ W).masked_fill(~legal, -1e9).argmax(1, keepdim=True)
        r = (a == best).float()
        adv = r - r.mean()
        loss = -(adv * p.gather(1, a).log()).mean() - 0.01 * entropy(p, fixed).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        rew.append(r.mean().item())
    return {"reward": sum(rew[-30:]) / 30, "loss": loss.item()}
