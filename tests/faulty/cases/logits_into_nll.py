import torch
from torch import nn

META = dict(title="NLLLoss on raw scores", faults=["objective.missing_log"], where="")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    layers = [nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5)]
    net = nn.Sequential(*layers, *([nn.LogSoftmax(dim=1)] if fixed else []))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    loss_fn = nn.NLLLoss()
    for _ in range(150):
        x = torch.randn(32, 8)
        loss = loss_fn(net(x), x[:, :5].argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
