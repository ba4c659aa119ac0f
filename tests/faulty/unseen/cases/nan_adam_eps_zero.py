import torch
import torch.nn as nn
from sklearn.datasets import load_digits

META = dict(
    title="Adam with eps=0 on images whose border pixels are always zero",
    source="eps=0 copied from a float64 script; from memory",
    family="optimizer",
    faults=["gradients.nonfinite"],
    where="",
    words=["Adam eps is zero", "division by zero in the optimizer update", "0 / 0 in Adam", "NaN weights after the optimizer step", "NaN parameters"],
    location="torch.optim.Adam(eps=0.0): weights fed by always-zero pixels have exp_avg = exp_avg_sq = 0, update 0 / 0",
    symptom="first loss and all gradients are finite, weights are NaN after the first step",
)


def accuracy(net, x, y):
    with torch.inference_mode():
        return (net(x).argmax(-1) == y).float().mean().item()


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    images, target = load_digits(return_X_y=True)
    x = torch.from_numpy(images).float().div(16)
    y = torch.from_numpy(target).long()
    perm = torch.randperm(len(x))
    tr, te = perm[:1300], perm[1300:]
    net = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 10))
    adam = torch.optim.Adam(net.parameters(), lr=3e-3, eps=1e-8 if fixed else 0.0)
    for epoch in range(6):
        for b in tr[torch.randperm(1300)].split(65):
            adam.zero_grad()
            loss = nn.functional.cross_entropy(net(x[b]), y[b])
            loss.backward()
            adam.step()
    return {"acc": accuracy(net, x[te], y[te]), "loss": loss.item()}


def separates(buggy, fixed):
    return buggy["loss"] != buggy["loss"] and fixed["acc"] > 0.85
