import torch
from torch import nn
from torch.nn import functional as F

META = dict(
    title="Next-note model of stacked convolutions that are padded on both sides",
    faults=["model.causal_leak"],
    where="layers.0",
)


class Waves(nn.Module):
    def __init__(self, both):
        super().__init__()
        self.both = both
        self.table = nn.Embedding(12, 24)
        self.layers = nn.ModuleList(nn.Conv1d(24, 24, 3, padding=d if both else 0, dilation=d) for d in (1, 2))
        self.out = nn.Conv1d(24, 12, 1)

    def forward(self, notes):
        h = self.table(notes).transpose(1, 2)
        for layer, d in zip(self.layers, (1, 2)):
            h = h + torch.relu(layer(h if self.both else F.pad(h, (2 * d, 0))))
        return self.out(h)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    step = torch.randint(1, 4, (400, 1))
    song = (torch.randint(0, 12, (400, 1)) + step * torch.arange(17) + torch.randint(0, 2, (400, 17))) % 12
    net = Waves(both=not fixed)
    adam = torch.optim.Adam(net.parameters(), 3e-3)
    for epoch in range(5):
        for batch in song.split(20):
            adam.zero_grad(set_to_none=True)
            loss = F.cross_entropy(net(batch[:, :-1]), batch[:, 1:])
            loss.backward()
            adam.step()
    return {"loss": loss.item()}
