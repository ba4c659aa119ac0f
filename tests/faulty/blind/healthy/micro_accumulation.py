import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Accumulates thirty-two micro-batches of two, one update per pass part",
            looks_like="most backward calls are not followed by a step, gradients grow between updates", family="healthy")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(1024, 8)
    y = torch.sin(x[:, :1] * 2) + x[:, 1:2] * x[:, 2:3]
    dl = DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True)
    m = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    opt = torch.optim.Adam(m.parameters(), lr=8e-3)
    n, hist = 32, []
    for ep in range(9):
        run = 0.0
        for k, (a, b) in enumerate(dl):
            loss = (m(a) - b).square().mean() / n
            loss.backward()
            run += loss.item()
            if k % n == n - 1:
                opt.step()
                opt.zero_grad()
                hist.append(run)
                run = 0.0
    return {"first": hist[0], "last": sum(hist[-16:]) / 16}
