import torch
from torch import nn

META = dict(title="LBFGS with a closure, several backwards a step", looks_like="many backwards, few steps")


def train(seed):
    torch.manual_seed(seed)
    x = torch.linspace(-2, 2, 80)[:, None]
    y = torch.sin(2 * x) + 0.05 * torch.randn_like(x)
    net = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    opt = torch.optim.LBFGS(net.parameters(), lr=0.8, max_iter=8, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        return loss

    for _ in range(30):
        loss = opt.step(closure)
    return {"loss": loss.item()}
