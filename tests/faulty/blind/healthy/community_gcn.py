import torch
from torch import nn
import torch.nn.functional as F

META = dict(title="Two-layer GCN on one graph, loss on a few labelled nodes, full batch",
            looks_like="rows influence each other through the adjacency, most labels unused, same input each step", family="healthy")


class GCN(nn.Module):
    def __init__(self, d, h, k):
        super().__init__()
        self.w1, self.w2 = nn.Linear(d, h), nn.Linear(h, k)

    def forward(self, a, x):
        h = F.dropout(F.relu(a @ self.w1(x)), 0.3, self.training)
        return a @ self.w2(h)


def graph(n, k):
    y = torch.randint(0, k, (n,))
    p = torch.where(y[:, None] == y[None], 0.12, 0.012)
    a = (torch.rand(n, n) < p).float().triu(1)
    a = a + a.T + torch.eye(n)
    s = a.sum(1).rsqrt()
    x = F.one_hot(y, k).float() @ torch.randn(k, 12) + 1.5 * torch.randn(n, 12)
    return s[:, None] * a * s[None], x, y


def train(seed):
    torch.manual_seed(seed)
    a, x, y = graph(240, 4)
    lab = torch.zeros(240, dtype=torch.bool)
    lab[torch.randperm(240)[:60]] = True
    net = GCN(12, 32, 4)
    opt = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=5e-3)
    for ep in range(120):
        net.train()
        loss = F.cross_entropy(net(a, x)[lab], y[lab])
        opt.zero_grad(); loss.backward(); opt.step()
    net.eval()
    with torch.no_grad():
        o = net(a, x)
    return {"loss": loss.item(), "test_acc": (o.argmax(1) == y)[~lab].float().mean().item()}
