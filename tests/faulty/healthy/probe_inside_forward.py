import torch
from torch import nn

META = dict(title="The backbone runs under no_grad inside forward, the optimizer gets the head only", looks_like="parameters in no optimizer, in train mode")


class Probe(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(14, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        with torch.no_grad():
            h = self.backbone(x)
        return self.head(h)


def train(seed):
    torch.manual_seed(seed)
    net = Probe()
    opt = torch.optim.Adam(net.head.parameters(), lr=2e-2)
    w = torch.randn(14, 3)
    for _ in range(200):
        x = torch.randn(64, 14)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
