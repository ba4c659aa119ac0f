import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["activations.identical_units"],
    title="All weights filled with one constant",
    words=["symmetric initialisation", "symmetry not broken", "all hidden units identical", "constant weight init"],
    where="",
    shows="all rows of a hidden layer stay equal, the net acts as if one unit wide",
)


def reset(m, const):
    if isinstance(m, nn.Linear):
        if const:
            nn.init.constant_(m.weight, 0.05)
        else:
            nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))
    model.apply(lambda m: reset(m, const=not fixed))
    opt = torch.optim.Adam(model.parameters(), lr=4e-3)
    hist = []
    for step in range(400):
        x = torch.rand(128, 5) * 2 - 1
        y = torch.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] - x[:, 3].abs()
        loss = F.mse_loss(model(x).squeeze(1), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    w = model[0].weight
    return {"first": hist[0], "last": sum(hist[-30:]) / 30, "row_spread": w.std(0).mean().item()}
