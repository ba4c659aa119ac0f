import torch
import torch.nn as nn

META = dict(
    title="Deep linear encoder initialised with standard normal weights",
    source="CS231n notes on initialisation",
    family="gradients",
    faults=["activations.spread", "gradients.explosion", "updates.update_scale"],
    where="",
    words=["exploding gradients", "weights initialised too large", "bad initialisation", "activations grow with depth", "huge initial loss", "NaN or inf loss", "loss divergence"],
    location="Sequential of 10 Linear(48, 48): nn.init.normal_(weight, std=1.0), each layer multiplies the signal by about 7",
    symptom="first loss around 1e15, gradient norms astronomically large, loss inf/NaN or stuck at a huge value",
)


def mlp(width, depth, std):
    layers = [nn.Linear(width, width, bias=False) for _ in range(depth)]
    for l in layers:
        nn.init.normal_(l.weight, std=std)
    return nn.Sequential(*layers)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    W, depth = 48, 10
    target = torch.linalg.qr(torch.randn(W, W))[0]
    model = mlp(W, depth, W ** -0.5 if fixed else 1.0)
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    hist = []
    for step in range(300):
        x = torch.randn(128, W)
        loss = nn.functional.mse_loss(model(x), x @ target)
        model.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    return {"first": hist[0], "last": sum(hist[-10:]) / 10}


def separates(buggy, fixed):
    return fixed["last"] < 0.9 * fixed["first"] and not buggy["last"] < 100
