import torch
from torch import nn

META = dict(
    title="reduction='sum' over 64 rows, with a learning rate that was chosen for the mean",
    faults=["objective.summed_loss"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4))
    opt = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    lossf = nn.CrossEntropyLoss(reduction="mean" if fixed else "sum")
    for _ in range(150):
        x = torch.randn(64, 6)
        loss = lossf(net(x), x[:, :4].argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
