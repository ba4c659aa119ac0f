import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Integer division in the preprocessing turns all inputs to zero",
    faults=["losses.plateau", "gradients.vanishing"],
    where="",
    style="images as bytes, regression on a mean",
)


def prepare(images, fixed):
    return images.float() / 255 if fixed else (images // 256).float()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (400, 36), dtype=torch.int32)
    y = (images[:, :18].float().mean(1) > images[:, 18:].float().mean(1)).float()
    net = nn.Sequential(nn.Linear(36, 32), nn.ReLU(), nn.Linear(32, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(250):
        i = torch.randint(0, 400, (40,))
        loss = F.binary_cross_entropy_with_logits(net(prepare(images[i], fixed)).squeeze(1), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
