import torch
import torch.nn as nn

META = dict(title="LBFGS with strong Wolfe line search fits a small physics-like curve",
            looks_like="many backward calls per step, loss jumps up inside the line search, gradients shrink by orders of magnitude", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    t = torch.linspace(0, 6, 150).unsqueeze(1)
    y = torch.exp(-0.3 * t) * torch.cos(2 * t)
    net = nn.Sequential(nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1))
    opt = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=20, history_size=20, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = ((net(t / 3 - 1) - y) ** 2).mean()
        loss.backward()
        return loss

    first = closure().item()
    for outer in range(20):
        loss = opt.step(closure)
    return {"first": first, "last": closure().item()}


def healthy(m):
    return m["last"] < 0.02 * m["first"]
