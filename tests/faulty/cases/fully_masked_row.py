import torch
from torch import nn

META = dict(title="A padded sequence of length zero: softmax over a row of -inf", faults=["gradients.nonfinite"], where="")


class Pool(nn.Module):
    def __init__(s):
        super().__init__()
        s.a = nn.Linear(6, 1)
        s.o = nn.Linear(6, 2)

    def forward(s, x, n):
        sc = s.a(x).squeeze(2).masked_fill(torch.arange(8)[None] >= n[:, None], float("-inf"))
        return s.o((sc.softmax(1)[..., None] * x).sum(1))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = Pool()
    opt = torch.optim.Adam(m.parameters(), lr=5e-3)
    for k in range(200):
        x = torch.randn(16, 8, 6)
        n = torch.randint(1, 9, (16,))
        if k == 90:
            n[3] = 1 if fixed else 0
        l = nn.functional.cross_entropy(m(x, n), (x[:, 0, 0] > 0).long())
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
