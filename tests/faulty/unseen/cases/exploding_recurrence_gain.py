import torch
import torch.nn as nn

META = dict(
    title="Hand-written recurrent cell whose recurrent matrix has spectral radius 1.6",
    source="Pascanu et al. 2013, 'On the difficulty of training recurrent neural networks'",
    family="gradients",
    faults=["gradients.explosion", "updates.update_scale"],
    where="",
    words=["exploding gradients", "recurrent weights too large", "spectral radius above one", "bad initialisation", "exploding activations", "NaN or inf loss", "huge initial loss"],
    location="LeakyCell.U: nn.init.orthogonal_(gain=1.6) applied 40 times",
    symptom="loss starts at 1e10 and more, gradient norm likewise, then inf/NaN",
)


class LeakyCell(nn.Module):
    def __init__(self, n_in, n, gain):
        super().__init__()
        self.W = nn.Linear(n_in, n)
        self.U = nn.Parameter(torch.empty(n, n))
        nn.init.orthogonal_(self.U, gain=gain)

    def forward(self, x, h):
        return nn.functional.leaky_relu(self.W(x) + h @ self.U, 0.8)


class Counter(nn.Module):
    def __init__(self, gain, n=24):
        super().__init__()
        self.n, self.cell, self.read = n, LeakyCell(3, n, gain), nn.Linear(n, 1)

    def forward(self, seq):
        h = seq.new_zeros(seq.size(1), self.n)
        for x in seq:
            h = self.cell(x, h)
        return self.read(h).squeeze(-1)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    net = Counter(gain=1.0 if fixed else 1.6)
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    losses = []
    for it in range(150):
        seq = torch.randn(40, 32, 3)
        y = seq[-6:, :, 0].sum(0)
        loss = (net(seq) - y).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return {"start": losses[0], "end": sum(losses[-10:]) / 10}


def separates(buggy, fixed):
    return fixed["end"] < 0.7 * fixed["start"] and not buggy["end"] < 1e3
