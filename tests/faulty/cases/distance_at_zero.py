import torch
from torch import nn

META = dict(
    title="The square root in a distance loss has an infinite slope where a pair coincides",
    faults=["gradients.nonfinite"],
    where="",
    style="siamese net, hand-written loss",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(150):
        a, b = torch.randn(32, 6), torch.randn(32, 6)
        same = torch.rand(32) < 0.5
        b = torch.where(same[:, None], a + 0.1 * torch.randn(32, 6), b)
        if step >= 60:
            b[0] = a[0]
        square = ((net(a) - net(b)) ** 2).sum(1)
        d = torch.sqrt(square + (1e-8 if fixed else 0.0))
        loss = torch.where(same, d**2, torch.relu(1.5 - d) ** 2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
