import torch
from torch import nn

META = dict(
    title="Decoder starts from a fresh copy of the hidden state (torch.tensor(...))",
    faults=["updates.frozen_parameters"],
    where="enc",
)


class S(nn.Module):
    def __init__(s, cut):
        super().__init__()
        s.enc = nn.GRU(6, 20, batch_first=True)
        s.dec = nn.GRU(6, 20, batch_first=True)
        s.out = nn.Linear(20, 6)
        s.cut = cut

    def forward(s, a, b):
        h = s.enc(a)[1]
        if s.cut:
            h = h.clone().detach().requires_grad_(True)
        return s.out(s.dec(b, h)[0])


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = S(not fixed)
    opt = torch.optim.AdamW(m.parameters(), lr=5e-3)
    for _ in range(120):
        i = torch.randint(0, 6, (24, 5))
        a = nn.functional.one_hot(i, 6).float()
        b = torch.cat([torch.zeros(24, 1, 6), a[:, :-1]], 1)
        l = nn.functional.cross_entropy(m(a.flip(1), b).flatten(0, 1), i.flatten())
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
