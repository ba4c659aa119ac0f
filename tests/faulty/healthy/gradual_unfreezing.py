import torch
from torch import nn

META = dict(title="Layers are unfrozen one by one and added to the optimizer", looks_like="parameters without gradients for long")


def train(seed):
    torch.manual_seed(seed)
    layers = [nn.Sequential(nn.Linear(12, 12), nn.ReLU()) for _ in range(3)]
    net = nn.Sequential(*layers, nn.Linear(12, 3))
    for layer in layers:
        layer.requires_grad_(False)
    opt = torch.optim.SGD(net[3].parameters(), lr=0.1, momentum=0.9)
    w = torch.randn(12, 3)
    for step in range(240):
        if step in (60, 120, 180):
            layer = layers[2 - (step // 60 - 1)]
            layer.requires_grad_(True)
            opt.add_param_group({"params": layer.parameters(), "lr": 0.02})
        x = torch.randn(48, 12)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
