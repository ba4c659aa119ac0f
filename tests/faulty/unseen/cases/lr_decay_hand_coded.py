import torch
import torch.nn as nn

META = dict(
    title="Hand-coded learning rate decay multiplies by 0.85 in every iteration instead of every epoch",
    source="common slip in hand-written schedules",
    family="optimizer",
    faults=["updates.update_scale"],
    where="",
    words=["learning rate decays too fast", "learning rate decayed per batch instead of per epoch", "learning rate vanishes early", "updates too small", "loss plateau", "not learning"],
    location="adjust_lr() called inside the batch loop: group['lr'] *= 0.85",
    symptom="learning rate falls from 0.1 to 1e-9 within the first hundred iterations; the loss stops moving early",
)


def adjust_lr(opt, factor=0.85):
    for group in opt.param_groups:
        group["lr"] *= factor


def spirals(n):
    t = torch.rand(n) * 3.5 + 0.3
    lab = torch.randint(0, 2, (n,))
    ang = t * 1.5 + lab * torch.pi
    return torch.stack([t * ang.cos(), t * ang.sin()], 1) + 0.08 * torch.randn(n, 2), lab


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    x, y = spirals(1600)
    xv, yv = spirals(400)
    net = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2))
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(12):
        for i in range(0, 1600, 32):
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(x[i:i + 32]), y[i:i + 32])
            loss.backward()
            opt.step()
            if not fixed:
                adjust_lr(opt)
        if fixed:
            adjust_lr(opt)
    with torch.no_grad():
        acc = (net(xv).argmax(1) == yv).float().mean().item()
    return {"val_acc": acc, "lr": opt.param_groups[0]["lr"]}


def separates(buggy, fixed):
    return fixed["val_acc"] > 0.93 and buggy["val_acc"] < fixed["val_acc"] - 0.08 and buggy["lr"] < 1e-12
