import torch
from torch import nn

META = dict(title="Each block is left out in a third of the steps", looks_like="gradients None now and then")


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)) for _ in range(6))
        self.out = nn.Linear(16, 4)

    def forward(self, x):
        for b in self.blocks:
            if not self.training or torch.rand(()) > 0.33:
                x = x + 0.5 * b(x)
        return self.out(x)


def train(seed):
    torch.manual_seed(seed)
    net, w = Deep(), torch.randn(16, 4)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for step in range(200):
        net.train()
        x = torch.randn(40, 16)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 50 == 49:
            net.eval()
            with torch.no_grad():
                val = nn.functional.cross_entropy(net(x), (x @ w).argmax(1)).item()
    return {"val": val}
