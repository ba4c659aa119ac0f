import torch
from torch import nn

META = dict(
    title="A whole model in bfloat16 that learns: its rate is large enough for the spacing of its weights",
    looks_like="weights in half precision without float32 copies",
)


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).to(torch.bfloat16)
    opt = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    w = torch.randn(16, 4)
    for _ in range(200):
        x = torch.randn(64, 16)
        loss = nn.functional.cross_entropy(net(x.bfloat16()).float(), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
