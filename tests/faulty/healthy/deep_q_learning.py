import copy

import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Q-learning with a target network: the loss rises as values grow", looks_like="loss divergence")


def train(seed):
    torch.manual_seed(seed)
    q = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 2))
    target = copy.deepcopy(q)
    opt = torch.optim.Adam(q.parameters(), lr=2e-3)
    s = torch.randn(64, 3)
    for step in range(400):
        with torch.no_grad():
            a = torch.where(torch.rand(64) < 0.2, torch.randint(0, 2, (64,)), q(s).argmax(1))
            nxt = 0.9 * s + 0.3 * torch.randn(64, 3) + 0.2 * (a * 2 - 1)[:, None]
            goal = nxt.sum(1).tanh() + 0.97 * target(nxt).max(1).values
        loss = F.smooth_l1_loss(q(s).gather(1, a[:, None]).squeeze(1), goal)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(q.parameters(), 1.0)
        opt.step()
        s = nxt
        if step % 20 == 0:
            target.load_state_dict(q.state_dict())
    return {"loss": loss.item()}
