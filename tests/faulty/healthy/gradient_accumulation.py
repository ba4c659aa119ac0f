import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Four batches accumulate before each step, cleared after it", looks_like="zero_grad in one of four batches")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(960, 10)
    y = (x[:, :2].prod(1) > 0).long()
    net = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 2))
    opt = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(10):
        for k, (xb, yb) in enumerate(DataLoader(TensorDataset(x, y), 16, shuffle=True)):
            (nn.functional.cross_entropy(net(xb), yb) / 4).backward()
            if k % 4 == 3:
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                opt.step()
                opt.zero_grad(set_to_none=False)
    return {"loss": nn.functional.cross_entropy(net(x), y).item()}
