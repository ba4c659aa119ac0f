import torch
from torch import nn

META = dict(
    title="N(0,1) weights in a deep ReLU net",
    faults=["activations.spread", "gradients.explosion", "updates.update_scale", "gradients.nonfinite", "losses.loss_divergence"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = nn.Sequential(*[m for _ in range(10) for m in (nn.Linear(32, 32), nn.ReLU())], nn.Linear(32, 1))
    if not fixed:
        for m in net:
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight)
    opt = torch.optim.SGD(net.parameters(), lr=1e-3)
    for _ in range(150):
        x = torch.randn(32, 32)
        loss = nn.functional.mse_loss(net(x), x[:, :1])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
