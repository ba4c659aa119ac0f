import torch
from torch import nn

META = dict(
    title="Nodes are pooled by soft assignment to clusters (softmax over clusters, a product over nodes)",
    looks_like="attention over the wrong axis",
)


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.assign = nn.Linear(6, 9)
        self.head = nn.Linear(16 * 9, 3)

    def forward(self, x):
        h = torch.relu(self.embed(x))
        s = self.assign(x).softmax(-1)
        return self.head((s.transpose(1, 2) @ h).flatten(1))


def train(seed):
    torch.manual_seed(seed)
    net = Pool()
    opt = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(220):
        x = torch.randn(32, 9, 6)
        y = x[..., :3].mean(1).argmax(-1)
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
