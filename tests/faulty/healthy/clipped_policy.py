import torch
from torch import nn

META = dict(title="PPO: one batch is used for several epochs, one optimizer for policy and value", looks_like="loss without a trend")


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 32), nn.Tanh())
        self.pi, self.v = nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, s):
        h = self.trunk(s)
        return torch.distributions.Categorical(logits=self.pi(h)), self.v(h).squeeze(1)


def train(seed):
    torch.manual_seed(seed)
    agent, w = Agent(), torch.randn(4, 3)
    opt = torch.optim.Adam(agent.parameters(), lr=2e-3)
    for _ in range(40):
        s = torch.randn(128, 4)
        with torch.no_grad():
            dist, v = agent(s)
            a = dist.sample()
            old = dist.log_prob(a)
            r = (s @ w)[torch.arange(128), a]
            adv = r - v
        for _ in range(4):
            for i in torch.randperm(128).split(32):
                dist, value = agent(s[i])
                ratio = (dist.log_prob(a[i]) - old[i]).exp()
                surrogate = torch.minimum(ratio * adv[i], ratio.clamp(0.8, 1.2) * adv[i]).mean()
                loss = -surrogate + 0.5 * (value - r[i]).pow(2).mean() - 0.01 * dist.entropy().mean()
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                opt.step()
    return {"reward": r.mean().item()}
