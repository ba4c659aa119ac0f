import torch
from torch import nn

META = dict(
    title="Each step seeds its noise by its own number, so that a resumed run repeats it; samples for a plot use one seed",
    looks_like="torch.manual_seed inside the training loop",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Dropout(0.2), nn.Linear(40, 1))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    w = torch.randn(6, 1)
    for step in range(200):
        torch.manual_seed(1000 * seed + step)
        x = torch.randn(32, 6)
        loss = nn.functional.mse_loss(net(x), x @ w)
        opt.zero_grad()
        loss.backward()
        opt.step()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with torch.no_grad():
                net(torch.randn(4, 6))
    return {"loss": loss.item()}
