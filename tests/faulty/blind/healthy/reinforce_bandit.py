import torch
from torch import nn

META = dict(title="REINFORCE with a running baseline on a contextual bandit",
            looks_like="the loss is noisy, changes sign and does not fall although the reward rises", family="healthy")


def train(seed):
    torch.manual_seed(seed)
    W = torch.randn(5, 4)
    policy = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 4))
    opt = torch.optim.Adam(policy.parameters(), lr=1e-2)
    baseline, rewards = 0.0, []
    for ep in range(350):
        obs = torch.randn(64, 5)
        pi = torch.distributions.Categorical(logits=policy(obs))
        act = pi.sample()
        rew = (obs @ W).softmax(1).gather(1, act[:, None])[:, 0]
        loss = -(pi.log_prob(act) * (rew - baseline)).mean() - 0.002 * pi.entropy().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        baseline = 0.9 * baseline + 0.1 * rew.mean().item()
        rewards.append(rew.mean().item())
    best = (torch.randn(2000, 5) @ W).softmax(1).max(1).values.mean().item()
    return {"first": sum(rewards[:10]) / 10, "last": sum(rewards[-20:]) / 20, "best_possible": best}
