import torch
from torch import nn

META = dict(
    title="A carried state that is never cut off: backward runs through all steps so far",
    faults=["objective.kept_graph"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    mix = nn.Parameter(torch.tensor(0.1))
    opt = torch.optim.SGD([mix], lr=1e-3)
    level = torch.zeros(16)
    for _ in range(110):
        x = torch.randn(16) + 1.0
        level = 0.5 * level + (mix * x) * 0.5
        loss = nn.functional.mse_loss(level, torch.full((16,), 0.7))
        opt.zero_grad()
        loss.backward(retain_graph=not fixed)
        opt.step()
        if fixed:
            level = level.detach()
    return {"mix": mix.item()}
