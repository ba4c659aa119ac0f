import torch
from torch import nn

META = dict(
    title="AdamW with weight_decay=1 on few samples: strong regularisation that works",
    looks_like="a weight decay a hundred times the usual one, weights that shrink",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1.0)
    x = torch.randn(200, 20)
    y = (x @ torch.randn(20, 3)).argmax(1)
    for _ in range(300):
        i = torch.randint(0, 200, (40,))
        loss = nn.functional.cross_entropy(net(x[i]), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
