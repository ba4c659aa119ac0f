import math
import torch
import torch.nn as nn

META = dict(
    title="Tanh network initialised with std 0.01 in every layer (AlexNet habit)",
    source="CS231n lecture on weight initialisation: 'small random numbers' in a 10-layer tanh net, all activations become zero",
    family="gradients",
    faults=["activations.spread", "gradients.vanishing"],
    where="",
    words=["vanishing gradients", "weights initialised too small", "bad initialisation", "activations collapse to zero", "loss plateau", "not learning"],
    location="init_weights: nn.init.normal_(weight, std=0.01) on eight tanh layers of width 32",
    symptom="the output does not depend on the input, gradients vanish in all layers but the last bias, loss equals the variance of the target",
)


def init_weights(std):
    def f(m):
        if isinstance(m, nn.Linear):
            if std is None:
                nn.init.xavier_normal_(m.weight, gain=5 / 3)
            else:
                nn.init.normal_(m.weight, std=std)
            nn.init.zeros_(m.bias)
    return f


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    dims = [2] + [32] * 8 + [1]
    net = nn.Sequential(*[m for a, b in zip(dims, dims[1:]) for m in (nn.Linear(a, b), nn.Tanh())][:-1])
    net.apply(init_weights(None if fixed else 0.01))
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.8)
    grid = torch.rand(1024, 2) * 2 - 1
    z = (torch.sin(math.pi * grid[:, :1]) * torch.cos(2 * grid[:, 1:])) * 1.2
    for epoch in range(25):
        order = torch.randperm(1024)
        total = 0.0
        for k in range(0, 1024, 64):
            j = order[k:k + 64]
            loss = nn.functional.mse_loss(net(grid[j]), z[j])
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item() / 16
    return {"train_mse": total, "target_var": z.var().item()}


def separates(buggy, fixed):
    return buggy["train_mse"] > 0.9 * buggy["target_var"] and fixed["train_mse"] < 0.3 * fixed["target_var"]
