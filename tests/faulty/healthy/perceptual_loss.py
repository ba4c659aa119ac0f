import torch
from torch import nn

META = dict(title="A fixed feature net in eval mode, not frozen, judges the output of the trained one", looks_like="gradients for parameters in no optimizer")


def train(seed):
    torch.manual_seed(seed)
    features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)).eval()
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(120):
        clean = torch.rand(8, 1, 10, 10).round()
        out = net(clean + 0.3 * torch.randn_like(clean))
        loss = nn.functional.mse_loss(features(out), features(clean)) + 0.1 * nn.functional.l1_loss(out, clean)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
