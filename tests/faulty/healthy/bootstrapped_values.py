import torch
from torch import nn

META = dict(title="Q-learning without a target network, small rewards first, larger ones later", looks_like="the loss grows by a hundred")


def train(seed):
    torch.manual_seed(seed)
    q = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    opt = torch.optim.Adam(q.parameters(), lr=1e-3)
    for step in range(400):
        s = torch.randn(32, 2)
        a = torch.randint(0, 2, (32,))
        s2 = s + 0.1 * (2 * a - 1)[:, None]
        with torch.no_grad():
            goal = s2[:, 0] * (0.05 + step / 100) + 0.9 * q(s2).max(1).values
        loss = (q(s)[torch.arange(32), a] - goal).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
