import torch
from torch import nn
from torch.distributions import Categorical

META = dict(
    title="A policy that ends in softmax, given to Categorical as logits", faults=["objective.double_softmax"], where=""
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    policy = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4), nn.Softmax(dim=-1))
    opt = torch.optim.Adam(policy.parameters(), lr=3e-3)
    reward = 0.0
    for _ in range(260):
        obs = torch.randn(48, 6)
        p = policy(obs)
        dist = Categorical(probs=p) if fixed else Categorical(logits=p)
        act = dist.sample()
        r = (act == obs[:, :4].argmax(1)).float()
        loss = -(dist.log_prob(act) * (r - 0.25)).mean() - 0.01 * dist.entropy().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        reward = 0.9 * reward + 0.1 * r.mean().item()
    return {"reward": reward}
