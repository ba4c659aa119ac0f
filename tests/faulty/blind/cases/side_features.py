import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.frozen_parameters"],
    title="Wide and deep model whose second branch is computed and dropped",
    words=["unused branch", "branch output not used", "parameters without gradient", "module never contributes to the loss"],
    where="",
    shows="wide table has grad None for the whole run; loss floors high",
)


class WideDeep(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.wide = nn.EmbeddingBag(50, 1, mode="sum")
        self.deep = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
        self.join = join

    def forward(self, num, cat):
        out = self.deep(num)
        w = self.wide(cat)
        if self.join:
            out = out + w
        return out.squeeze(1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    effect = torch.randn(50)
    m = WideDeep(join=fixed)
    opt = torch.optim.Adam(m.parameters(), lr=2e-2)
    for it in range(300):
        num, cat = torch.randn(64, 4), torch.randint(0, 50, (64, 3))
        y = effect[cat].sum(1) + (num[:, 0] * num[:, 1]).clamp(-2, 2)
        loss = F.mse_loss(m(num, cat), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item(), "target_var": y.var().item()}
