import torch
from torch import nn

META = dict(title="GAN inside one module, gradients of D kept off while G trains", looks_like="flat losses")


class GAN(nn.Module):
    def __init__(s):
        super().__init__()
        s.g = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
        s.d = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(24, 1))

    def forward(s, z):
        return s.d(s.g(z))


def train(seed):
    torch.manual_seed(seed)
    m = GAN()
    og, od = torch.optim.Adam(m.g.parameters(), 1e-3), torch.optim.Adam(m.d.parameters(), 1e-3)
    f = nn.BCEWithLogitsLoss()
    for _ in range(200):
        r = torch.randn(32, 2) * 0.4 + 1
        z = torch.randn(32, 4)
        od.zero_grad()
        (f(m.d(r), torch.ones(32, 1)) + f(m.d(m.g(z).detach()), torch.zeros(32, 1))).backward()
        od.step()
        og.zero_grad()
        l = f(m(z), torch.ones(32, 1))
        l.backward()
        og.step()
    return {"l": l.item()}
