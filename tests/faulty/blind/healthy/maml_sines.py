import torch
from torch.func import functional_call
from torch import nn

META = dict(title="MAML on random sine waves, inner step differentiated through",
            looks_like="create_graph, weights not updated in the inner loop, loss jumps with the task", family="healthy")


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)

    def task():
        amp, ph = 0.5 + 2 * torch.rand(1), 3.14 * torch.rand(1)
        return lambda x: amp * torch.sin(x + ph)

    def adapt(params, f, create):
        x = torch.rand(15, 1) * 8 - 4
        loss = (functional_call(net, params, (x,)) - f(x)).square().mean()
        g = torch.autograd.grad(loss, list(params.values()), create_graph=create)
        return {k: v - 0.1 * gi.clamp(-10, 10) for (k, v), gi in zip(params.items(), g)}

    hist = []
    for it in range(200):
        total = 0.0
        for _ in range(4):
            f = task()
            fast = adapt(dict(net.named_parameters()), f, True)
            x = torch.rand(20, 1) * 8 - 4
            total = total + (functional_call(net, fast, (x,)) - f(x)).square().mean() / 4
        opt.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        opt.step()
        hist.append(total.item())
    return {"first": sum(hist[:10]) / 10, "last": sum(hist[-25:]) / 25}
