import torch
from torch import nn

META = dict(
    faults=["gradients.nonfinite"],
    title="Poisson count model with the rate as exp of unscaled inputs",
    words=["exp overflow", "overflow in exp gives inf", "loss becomes inf then NaN", "exponential of a large value"],
    where="",
    shows="loss infinite in the first steps, then NaN weights",
)


class PoissonHead(nn.Module):
    def __init__(self, d, scale):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(d, 24), nn.ReLU(), nn.Linear(24, 1))
        self.scale = scale
        nn.init.uniform_(self.body[2].weight, 0.0, 0.3)
        nn.init.uniform_(self.body[0].weight, -0.2, 0.5)

    def forward(self, x):
        return torch.exp(self.body(x / self.scale).squeeze(-1))


def nll(rate, k):
    return (rate - k * torch.log(rate + 1e-8)).mean()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = PoissonHead(4, 1500.0 if fixed else 1.0)
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    beta = torch.tensor([1.0, -1.0, 0.5, 0.8])
    hist = []
    for i in range(300):
        area = torch.rand(64, 4) * 3000
        lam = torch.exp(area / 1500 @ beta)
        k = torch.poisson(lam)
        loss = nll(model(area), k)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append((loss - nll(lam, k)).item())
    return {"excess_first": hist[0], "excess_last": sum(hist[-20:]) / 20}
