import torch
from torch import nn

META = dict(title="Curriculum over sequence length with a summed loss")


def train(seed):
    torch.manual_seed(seed)
    r = nn.GRU(4, 24, batch_first=True)
    o = nn.Linear(24, 4)
    ps = [*r.parameters(), *o.parameters()]
    opt = torch.optim.Adam(ps, 3e-3)
    for k in range(300):
        n = 3 + k // 20
        i = torch.randint(0, 4, (16, n))
        x = nn.functional.one_hot(i, 4).float()
        l = nn.functional.cross_entropy(o(r(x)[0])[:, 1:].flatten(0, 1), i[:, :-1].flatten(), reduction="sum") / 16
        opt.zero_grad()
        l.backward()
        nn.utils.clip_grad_norm_(ps, 1.0)
        opt.step()
    return {"l": l.item()}
