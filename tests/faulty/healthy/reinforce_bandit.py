import torch
from torch import nn

META = dict(title="REINFORCE with a baseline: the loss is noise around zero", looks_like="flat noisy loss")


def train(seed):
    torch.manual_seed(seed)
    policy = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
    opt = torch.optim.Adam(policy.parameters(), lr=5e-3)
    best = torch.randn(4, 3)
    baseline = 0.0
    for _ in range(300):
        s = torch.randn(32, 4)
        dist = torch.distributions.Categorical(logits=policy(s))
        a = dist.sample()
        reward = (a == (s @ best).argmax(1)).float() + 0.3 * torch.randn(32)
        loss = -(dist.log_prob(a) * (reward - baseline)).mean()
        baseline = 0.9 * baseline + 0.1 * reward.mean().item()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"reward": baseline}
