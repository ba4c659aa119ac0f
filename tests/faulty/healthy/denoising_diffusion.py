import torch
from torch import nn

META = dict(title="Predicting noise: falls at once, then a high noisy floor; EMA weights beside", looks_like="plateau")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    ema = {k: v.clone() for k, v in net.state_dict().items()}
    opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(300):
        x = torch.randn(64, 2) * 0.1 + torch.randint(0, 2, (64, 1)) * 2 - 1
        t, e = torch.rand(64, 1), torch.randn(64, 2)
        noisy = (1 - t).sqrt() * x + t.sqrt() * e
        loss = nn.functional.mse_loss(net(torch.cat([noisy, t], 1)), e)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        for k, v in net.state_dict().items():
            ema[k].lerp_(v, 0.01)
    return {"loss": loss.item()}
