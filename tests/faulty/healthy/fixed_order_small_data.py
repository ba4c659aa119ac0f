import torch
from torch import nn

META = dict(
    title="Mixed data cut into batches once, in the same order each epoch, seeded once an epoch",
    looks_like="the same batches in the same order, a seed set again and again",
)


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(400, 12)
    y = (x @ torch.randn(12, 5)).argmax(1)
    net = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Dropout(0.1), nn.Linear(48, 5))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(12):
        torch.manual_seed(seed)
        for a in range(0, 400, 20):
            loss = nn.functional.cross_entropy(net(x[a : a + 20]), y[a : a + 20])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
