import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="Layer-wise learning rate decay 0.01 per layer instead of 0.9",
    source="ELECTRA / BERT fine-tuning recipes with layer-wise lr decay, wrong decay constant",
    family="optimizer",
    faults=["updates.update_scale"],
    where="",
    words=["learning rate too small in the lower layers", "learning rate too small", "updates too small", "update to weight ratio too small", "lower layers practically frozen", "layers hardly updated", "frozen layers"],
    location="param_groups(): lr * decay ** depth with decay = 0.01; lower layers run at 3e-9 and below",
    symptom="lowest layers' weights do not move although their gradients are fine; the model only uses its last layers",
)


def param_groups(layers, base_lr, decay):
    n = len(layers)
    return [{"params": layer.parameters(), "lr": base_lr * decay ** (n - 1 - i)} for i, layer in enumerate(layers)]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(10, 12), nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 1)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.silu(layer(x))
        return self.layers[-1](x)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    net = Net()
    opt = torch.optim.Adam(param_groups(net.layers, 5e-3, 0.9 if fixed else 0.01))
    rec = []
    for step in range(500):
        x = torch.randn(64, 10)
        y = (x[:, :1] * x[:, 1:2]) + 0.8 * x[:, 2:3].abs()
        loss = F.mse_loss(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        rec.append(loss.item())
    return {"mse": sum(rec[-25:]) / 25}


def separates(buggy, fixed):
    return buggy["mse"] > 2 * fixed["mse"] and fixed["mse"] < 0.6
