import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(title="MAML on sine waves: inner step by autograd.grad with create_graph, outer Adam step over a batch of tasks",
            looks_like="autograd.grad next to backward, query loss of each task far apart, functional weights instead of the module's", family="healthy")


def forward(ps, x):
    w1, b1, w2, b2, w3, b3 = ps
    h = torch.tanh(F.linear(x, w1, b1))
    h = torch.tanh(F.linear(h, w2, b2))
    return F.linear(h, w3, b3)


def task():
    amp, ph = torch.randn(1) * 2, torch.rand(1) * 0.6
    def draw(n):
        x = torch.rand(n, 1) * 6 - 3
        return x / 3, amp * torch.sin(x + ph)
    return draw


def adapt(ps, x, y, create_graph, lr=0.15, k=2):
    for _ in range(k):
        g = torch.autograd.grad(F.mse_loss(forward(ps, x), y), ps, create_graph=create_graph)
        ps = [p - lr * d for p, d in zip(ps, g)]
    return ps


def evaluate(ps, n=60):
    pre = post = 0.0
    for _ in range(n):
        draw = task()
        x, y = draw(10)
        q, t = draw(30)
        fast = adapt(ps, x, y, create_graph=False)
        with torch.no_grad():
            pre += F.mse_loss(forward(ps, q), t).item() / n
            post += F.mse_loss(forward(fast, q), t).item() / n
    return pre, post


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    meta = torch.optim.Adam(net.parameters(), lr=4e-3)
    _, before = evaluate(list(net.parameters()))
    for it in range(300):
        total = 0.0
        for _ in range(4):
            draw = task()
            x, y = draw(10)
            q, t = draw(10)
            fast = adapt(list(net.parameters()), x, y, create_graph=True)
            total = total + F.mse_loss(forward(fast, q), t) / 4
        meta.zero_grad()
        total.backward()
        meta.step()
    pre, post = evaluate(list(net.parameters()))
    return {"post_before": before, "pre": pre, "post": post}


def healthy(m):
    return m["post"] < 0.75 * m["post_before"] and m["post"] < 0.8 * m["pre"]
