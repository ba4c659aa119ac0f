import torch
from torch import nn

META = dict(
    title="Slots compete for inputs: softmax over the slots, renormalised over the inputs",
    looks_like="attention over the queries",
)


class Slots(nn.Module):
    def __init__(self, n=6, d=16):
        super().__init__()
        self.slots = nn.Parameter(torch.randn(n, d))
        self.k, self.v, self.q = nn.Linear(5, d), nn.Linear(5, d), nn.Linear(d, d)
        self.cell, self.out = nn.GRUCell(d, d), nn.Linear(d, 5)

    def forward(self, x):
        b = x.shape[0]
        s = self.slots.expand(b, -1, -1)
        k, v = self.k(x), self.v(x)
        for _ in range(2):
            a = (self.q(s) @ k.transpose(1, 2) / 4).softmax(dim=1)
            a = a / (a.sum(-1, keepdim=True) + 1e-6)
            s = self.cell((a @ v).flatten(0, 1), s.reshape(-1, 16)).view(b, -1, 16)
        return self.out(s)


def train(seed):
    torch.manual_seed(seed)
    net = Slots()
    opt = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(150):
        centres = torch.randn(16, 6, 5)
        x = centres + 0.1 * torch.randn(16, 6, 5)
        d = torch.cdist(net(x), centres)
        loss = d.min(1).values.mean() + d.min(2).values.mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
