import torch
from torch import nn

META = dict(title="Training averages, validation adds up over the rows: 400 beside 2, and both come down")


def train(seed):
    torch.manual_seed(seed)
    y = torch.randint(0, 8, (800,))
    x = torch.randn(8, 16)[y] + 0.8 * torch.randn(800, 16)
    net = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 8))
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for epoch in range(10):
        net.train()
        for i in torch.randperm(600).split(30):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x[i]), y[i]).backward()
            opt.step()
        net.eval()
        with torch.inference_mode():
            total = sum(
                nn.functional.cross_entropy(net(x[k]), y[k], reduction="sum") for k in torch.arange(600, 800).split(50)
            )
    return {"val": float(total) / 200}
