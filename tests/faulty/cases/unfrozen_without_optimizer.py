import torch
from torch import nn

META = dict(title="The backbone is unfrozen after the warm-up, but the optimizer never hears of it", faults=["updates.frozen_parameters"], where="backbone", style="gradual unfreezing")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(10, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU())
        self.head = nn.Linear(40, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Model()
    model.backbone.requires_grad_(False)
    opt = torch.optim.Adam(filter(lambda p: p.requires_grad, model.parameters()), lr=3e-3)
    w = torch.randn(10, 3)
    for step in range(240):
        if step == 60:
            model.backbone.requires_grad_(True)
            if fixed:
                opt.add_param_group({"params": model.backbone.parameters(), "lr": 1e-3})
        x = torch.randn(32, 10)
        loss = nn.functional.cross_entropy(model(x), (x.abs() @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
