import torch
from torch import nn

META = dict(title="Both optimizers hold the discriminator", faults=["updates.frozen_parameters"], where="G")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    G = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
    D = nn.Sequential(nn.Linear(2, 24), nn.LeakyReLU(0.2), nn.Linear(24, 1))
    od = torch.optim.Adam(D.parameters(), 1e-3)
    og = torch.optim.Adam((G if fixed else D).parameters(), 1e-3)
    f = nn.BCEWithLogitsLoss()
    for _ in range(150):
        r = torch.randn(32, 2) * 0.3 + 1
        z = torch.randn(32, 4)
        od.zero_grad()
        (f(D(r), torch.ones(32, 1)) + f(D(G(z).detach()), torch.zeros(32, 1))).backward()
        od.step()
        og.zero_grad()
        l = f(D(G(z)), torch.ones(32, 1))
        l.backward()
        og.step()
    return {"l": l.item()}
