import torch
import torch.nn as nn

META = dict(
    title="Policy with masked actions: entropy bonus computed as p * log p with p exactly zero",
    source="common pitfall with masked action spaces in policy-gradient code; from memory",
    family="loss",
    faults=["gradients.nonfinite"],
    where="",
    words=["log of zero", "0 * inf in the entropy", "NaN loss", "p * log p with zero probability", "missing clamp or epsilon in log"],
    location="entropy(): -(p * p.log()).sum(-1) while masked actions have probability 0 (from masked_fill(-inf))",
    symptom="loss is NaN as soon as a state with forbidden actions appears (very first step), weights NaN",
)


class Bandit:
    """Contextual bandit, 6 arms, some arms forbidden."""

    def __init__(self, gen):
        self.gen = gen
        self.w = torch.randn(8, 6, generator=gen)

    def sample(self, n):
        s = torch.randn(n, 8, generator=self.gen)
        allowed = torch.rand(n, 6, generator=self.gen) > 0.3
        allowed[:, 0] = True
        return s, allowed

    def reward(self, s, a):
        r = s @ self.w
        return ((r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)).gather(1, a[:, None]).squeeze(1)


def entropy(p, safe):
    logp = p.clamp(min=1e-12).log() if safe else p.log()
    return -(p * logp).sum(-1)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    env = Bandit(torch.Generator().manual_seed(seed))
    policy = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 6))
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    rewards = []
    for update in range(200):
        s, allowed = env.sample(64)
        logits = policy(s).masked_fill(~allowed, float("-inf"))
        p = torch.softmax(logits, -1)
        with torch.no_grad():
            draw = torch.nan_to_num(p, nan=1 / 6)
            a = torch.multinomial(draw, 1).squeeze(1)
        r = env.reward(s, a)
        chosen = p.gather(1, a[:, None]).squeeze(1)
        pg = -((r - r.mean()) * torch.log(chosen + 1e-8)).mean()
        loss = pg - 0.01 * entropy(p, fixed).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rewards.append(r.mean().item())
    return {"reward": sum(rewards[-20:]) / 20, "loss": loss.item()}


def separates(buggy, fixed):
    return buggy["loss"] != buggy["loss"] and fixed["loss"] == fixed["loss"] and fixed["reward"] > buggy["reward"] + 0.5
