import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import make_moons

META = dict(
    faults=["losses.rate_too_low"],
    title="Moons classifier with a clip limit a thousand times too small",
    words=["gradient clipping too tight", "clip limit too small", "clipping kills the update", "max_norm tiny"],
    where="",
    shows="gradients are cut to 0.001 at every step, loss barely changes",
)
CFG = dict(lr=0.5, max_norm=1e-3, steps=300)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    cfg = {**CFG, "max_norm": 1.0} if fixed else CFG
    x, y = make_moons(800, noise=0.15, random_state=seed)
    x, y = torch.tensor(x).float(), torch.tensor(y).float()
    net = nn.Sequential(nn.Linear(2, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    opt = torch.optim.SGD(net.parameters(), lr=cfg["lr"])
    first = None
    for s in range(cfg["steps"]):
        i = torch.randperm(800)[:80]
        loss = F.binary_cross_entropy_with_logits(net(x[i])[:, 0], y[i])
        first = first or loss.item()
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), cfg["max_norm"])
        opt.step()
    acc = ((net(x)[:, 0] > 0) == y.bool()).float().mean().item()
    return {"first": first, "last": loss.item(), "acc": acc}
