import torch
from torch import nn

META = dict(title="L-BFGS with strong Wolfe search over the whole table",
            looks_like="many forward and backward calls per step, same batch each time", family="healthy")


def train(seed):
    torch.manual_seed(seed)
    t = torch.linspace(0, 6, 150)[:, None]
    y = torch.sin(t) * torch.exp(-0.2 * t) + 0.02 * torch.randn_like(t)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    opt = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=4, history_size=20, line_search_fn="strong_wolfe")
    hist = []

    def closure():
        opt.zero_grad()
        loss = (net(t) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(70):
        hist.append(opt.step(closure).item())
    return {"first": hist[0], "last": hist[-1]}
