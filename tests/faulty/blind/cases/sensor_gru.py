import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    faults=["model.batch_mixing"],
    title="GRU over a sensor stream; time and batch exchanged with view",
    words=["wrong reshape mixes samples", "view instead of transpose", "batch and time mixed by view", "samples mixed"],
    where="",
    shows="accuracy stays near chance although the loss is finite and gradients flow",
)


class SeqNet(nn.Module):
    def __init__(self, c, h, k):
        super().__init__()
        self.rnn = nn.GRU(c, h)
        self.fc = nn.Linear(h, k)
        self.swap = None

    def forward(self, x):
        b, t, c = x.shape
        x = x.transpose(0, 1) if self.swap == "transpose" else x.view(t, b, c)
        o, _ = self.rnn(x)
        return self.fc(o.mean(0))


def batch(n):
    y = torch.randint(0, 5, (n,))
    t = torch.arange(16.0)
    freq = 0.2 + 0.25 * y.float()
    ph = 6.28 * torch.rand(n, 1)
    s = torch.stack([torch.sin(freq[:, None] * t + ph), torch.cos(freq[:, None] * t + ph)], -1)
    return s + 0.3 * torch.randn_like(s), y


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = SeqNet(2, 32, 5)
    net.swap = "transpose" if fixed else "view"
    opt = torch.optim.RMSprop(net.parameters(), lr=2e-3)
    for i in range(250):
        x, y = batch(40)
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        opt.step()
    x, y = batch(40)
    acc = (net(x).argmax(1) == y).float().mean().item()
    return {"loss": loss.item(), "acc": acc}
