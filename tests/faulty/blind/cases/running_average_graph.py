import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["objective.kept_graph"],
    title="Smoothed loss kept as a tensor and used in the objective",
    words=["graph kept across steps", "loss history holds the graph", "memory grows with the steps", "retain_graph without detach"],
    where="",
    shows="autograd graph and live tensors grow with every step",
)


def live_nodes(t):
    seen, stack = set(), [t.grad_fn] if t.grad_fn is not None else []
    while stack:
        f = stack.pop()
        if f is None or f in seen:
            continue
        seen.add(f)
        stack += [n for n, _ in f.next_functions]
    return len(seen)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = nn.Sequential(nn.Linear(6, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(m.parameters(), lr=3e-3)
    ema = torch.zeros(())
    history = []
    for it in range(250):
        x = torch.randn(64, 6)
        y = (x[:, :1] * x[:, 1:2]) + x[:, 2:3].sin()
        loss = F.mse_loss(m(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        ema = 0.95 * ema + 0.05 * (loss.detach() if fixed else loss)
        history.append(ema)
    return {"first": history[20].item(), "ema": ema.item(), "graph_nodes": live_nodes(ema)}
