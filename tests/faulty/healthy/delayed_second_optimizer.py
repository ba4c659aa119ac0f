import torch
from torch import nn

META = dict(
    title="The second optimizer begins to step after a third of the run", looks_like="parameters that never move for long"
)


def train(seed):
    torch.manual_seed(seed)
    body, head = nn.Sequential(nn.Linear(10, 32), nn.ReLU()), nn.Linear(32, 3)
    ob, oh = torch.optim.SGD(body.parameters(), 0.05), torch.optim.SGD(head.parameters(), 0.1)
    w = torch.randn(10, 3)
    for k in range(240):
        x = torch.randn(32, 10)
        l = nn.functional.cross_entropy(head(body(x)), (x @ w).argmax(1))
        ob.zero_grad()
        oh.zero_grad()
        l.backward()
        oh.step()
        if k >= 80:
            ob.step()
    return {"l": l.item()}
