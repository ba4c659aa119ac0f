import torch
from torch import nn

META = dict(title="Graph net: rows are nodes, and each one's answer goes with its neighbours")


class Graph(nn.Module):
    def __init__(self, links):
        super().__init__()
        self.register_buffer("links", links)
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.links @ self.b(torch.relu(self.links @ self.a(x)))


def train(seed):
    torch.manual_seed(seed)
    kind = torch.randint(0, 3, (60,))
    near = (torch.rand(60, 60) < torch.where(kind[:, None] == kind, 0.3, 0.02)).float()
    near = ((near + near.T) > 0).float() + torch.eye(60)
    x = nn.functional.one_hot(kind, 8).float() + torch.randn(60, 8)
    net = Graph(near / near.sum(1, keepdim=True))
    opt = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(120):
        noisy = x + 0.1 * torch.randn_like(x)
        loss = nn.functional.cross_entropy(net(noisy), kind)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
