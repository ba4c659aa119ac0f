import torch
import torch.nn as nn

META = dict(
    title="Loss values collected in a list and wrapped in a new tensor before backward",
    source="common beginner fix for 'element 0 of tensors does not require grad'",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["detached graph", "detached loss", "loss cut off from the model", "parameters without gradient", "parameters never updated", "torch.tensor(loss, requires_grad=True) breaks the graph", "not learning", "loss plateau"],
    location="train loop: total = torch.tensor([l.item() for l in losses], requires_grad=True).sum(); no parameter gets a gradient",
    symptom="backward runs without error, all gradients are None, weights never change",
)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Linear(5, 32), nn.Tanh())
    heads = nn.ModuleList(nn.Linear(32, 1) for _ in range(3))
    opt = torch.optim.Adam([*trunk.parameters(), *heads.parameters()], lr=5e-3)
    mse = nn.MSELoss()
    curve = []
    for step in range(250):
        x = torch.randn(48, 5)
        targets = (x[:, :1] * x[:, 1:2], x[:, 2:3].abs(), torch.sin(2 * x[:, 3:4]))
        z = trunk(x)
        losses = [mse(h(z), t) for h, t in zip(heads, targets)]
        if fixed:
            total = torch.stack(losses).sum()
        else:
            total = torch.tensor([l.item() for l in losses], requires_grad=True).sum()
        opt.zero_grad()
        total.backward()
        opt.step()
        curve.append(total.item())
    return {"head": sum(curve[:10]) / 10, "tail": sum(curve[-10:]) / 10}


def separates(buggy, fixed):
    return buggy["tail"] > 0.7 * buggy["head"] and fixed["tail"] < 0.5 * fixed["head"]
