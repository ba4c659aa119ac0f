import torch
from torch import nn

META = dict(title="Actor and critic with an optimizer each; the critic's loss grows with the returns", looks_like="rising noisy losses")


def train(seed):
    torch.manual_seed(seed)
    actor, critic = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2)), nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    oa, oc = torch.optim.Adam(actor.parameters(), lr=3e-3), torch.optim.Adam(critic.parameters(), lr=1e-2)
    for _ in range(200):
        s, rewards, logs, states = torch.zeros(16, 3), [], [], []
        for _ in range(6):
            dist = torch.distributions.Categorical(logits=actor(s))
            a = dist.sample()
            states.append(s)
            logs.append(dist.log_prob(a))
            s = 0.9 * s + 0.3 * torch.randn(16, 3) + (a.float() - 0.3)[:, None]
            rewards.append(s.sum(1))
        ret, returns = torch.zeros(16), []
        for r in reversed(rewards):
            ret = r + 0.95 * ret
            returns.insert(0, ret)
        g, st = torch.stack(returns), torch.stack(states)
        v = critic(st).squeeze(-1)
        value_loss = nn.functional.mse_loss(v, g)
        oc.zero_grad()
        value_loss.backward()
        oc.step()
        adv = (g - v).detach()
        policy_loss = -(torch.stack(logs) * (adv - adv.mean())).mean()
        oa.zero_grad()
        policy_loss.backward()
        oa.step()
    return {"return": g[0].mean().item()}
