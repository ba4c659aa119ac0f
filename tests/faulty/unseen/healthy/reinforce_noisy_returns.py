import torch
import torch.nn as nn
from torch.distributions import Categorical

META = dict(title="REINFORCE on a small corridor with noisy returns and a running baseline",
            looks_like="loss is pure noise around zero, changes sign, never decreases; roll-outs without gradient", family="healthy")


class Corridor:
    """walk on 0..8, start 4, goal 8, cost 0.05 a move, noisy reward at the goal"""

    def __init__(self, n):
        self.n = n

    def reset(self):
        self.pos = torch.full((self.n,), 4)
        self.alive = torch.ones(self.n, dtype=torch.bool)
        return self.obs()

    def obs(self):
        return nn.functional.one_hot(self.pos, 9).float()

    def step(self, a):
        self.pos = torch.where(self.alive, (self.pos + 2 * a - 1).clamp(0, 8), self.pos)
        goal = self.alive & (self.pos == 8)
        r = torch.where(self.alive, torch.full((self.n,), -0.05), torch.zeros(self.n)) + goal * (1 + 0.7 * torch.randn(self.n))
        was = self.alive.clone()
        self.alive = self.alive & ~goal
        return self.obs(), r, was


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    policy = nn.Sequential(nn.Linear(9, 24), nn.Tanh(), nn.Linear(24, 2))
    opt = torch.optim.Adam(policy.parameters(), lr=1e-2)
    env, baseline, returns = Corridor(16), 0.0, []
    for episode in range(120):
        o, logps, rs, masks = env.reset(), [], [], []
        for t in range(14):
            dist = Categorical(logits=policy(o))
            a = dist.sample()
            logps.append(dist.log_prob(a))
            o, r, m = env.step(a)
            rs.append(r)
            masks.append(m)
        G = torch.stack(rs).flip(0).cumsum(0).flip(0)
        baseline = 0.9 * baseline + 0.1 * G[0].mean().item()
        loss = -(torch.stack(logps) * (G - baseline) * torch.stack(masks)).sum(0).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        returns.append(G[0].mean().item())
    return {"early": sum(returns[:10]) / 10, "late": sum(returns[-20:]) / 20}


def healthy(m):
    return m["late"] > m["early"] + 0.2 and m["late"] > 0.55
