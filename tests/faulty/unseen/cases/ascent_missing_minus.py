import torch
import torch.nn as nn
from torch.distributions import Normal

META = dict(
    title="Heteroscedastic regression minimises the log-likelihood instead of its negative",
    source="common slip: sign error in a hand-written likelihood or ELBO; from memory",
    family="loss",
    faults=["losses.loss_divergence", "gradients.explosion"],
    where="",
    words=["wrong sign of the loss", "gradient ascent", "loss has the wrong sign", "log-likelihood minimised instead of maximised", "loss divergence", "loss goes to minus infinity", "exploding gradients", "NaN or inf loss"],
    location="train(): loss = dist.log_prob(y).mean() (minus sign missing)",
    symptom="loss falls without bound towards minus infinity while the error of the mean grows",
)


class GaussianHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.ELU(), nn.Linear(32, 32), nn.ELU())
        self.mu, self.raw = nn.Linear(32, 1), nn.Linear(32, 1)

    def forward(self, x):
        h = self.trunk(x)
        return Normal(self.mu(h), nn.functional.softplus(self.raw(h)) + 0.05)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    model = GaussianHead()
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(400):
        x = torch.rand(128, 1) * 6 - 3
        y = torch.sin(x) + (0.1 + 0.1 * x.abs()) * torch.randn_like(x)
        dist = model(x)
        loss = dist.log_prob(y).mean()
        if fixed:
            loss = -loss
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    with torch.no_grad():
        x = torch.linspace(-3, 3, 200)[:, None]
        err = (model(x).mean - torch.sin(x)).abs().mean().item()
    return {"mean_error": err, "loss": losses[-1]}


def separates(buggy, fixed):
    return fixed["mean_error"] < 0.25 and not buggy["mean_error"] < 1.0
