import torch
from torch import nn

META = dict(
    title="Layers in a plain dict are invisible to parameters()",
    faults=["updates.frozen_parameters"],
    where="towers",
    style="multi-input model",
)


class TwoTowers(nn.Module):
    def __init__(self, registered):
        super().__init__()
        towers = {"user": nn.Linear(8, 16), "item": nn.Linear(10, 16)}
        self.towers = nn.ModuleDict(towers) if registered else towers
        self.join = nn.Linear(32, 1)

    def forward(self, user, item):
        h = torch.cat([torch.relu(self.towers["user"](user)), torch.relu(self.towers["item"](item))], 1)
        return self.join(h).squeeze(1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = TwoTowers(fixed)
    opt = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(200):
        u, i = torch.randn(64, 8), torch.randn(64, 10)
        y = ((u[:, 0] + i[:, 0] * (i[:, 1] > 0)) > 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(u, i), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
