import torch, copy
from torch import nn

META = dict(title="DQN, target net in train mode, detach() on its output, no no_grad")


def train(seed):
    torch.manual_seed(seed)
    q = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 2))
    t = copy.deepcopy(q)
    o = torch.optim.RMSprop(q.parameters(), 1e-3)
    for k in range(300):
        s = torch.randn(32, 3)
        a = torch.randint(0, 2, (32,))
        s2 = s + 0.2 * (2 * a - 1)[:, None]
        y = s2.sum(1) + 0.9 * t(s2).max(1)[0].detach()
        l = nn.functional.smooth_l1_loss(q(s).gather(1, a[:, None])[:, 0], y)
        o.zero_grad()
        l.backward()
        o.step()
        if k % 25 == 0:
            t.load_state_dict(q.state_dict())
    return {"l": l.item()}
