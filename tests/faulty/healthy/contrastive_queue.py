import copy

import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="Contrastive learning with a queue of negatives that fills up: the loss rises first", looks_like="loss divergence, frozen copy")


def train(seed):
    torch.manual_seed(seed)
    base = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 8))
    momentum = copy.deepcopy(base).requires_grad_(False)
    queue = torch.zeros(0, 8)
    opt = torch.optim.SGD(base.parameters(), lr=0.05, momentum=0.9)
    for _ in range(250):
        x = torch.randn(32, 12)
        q = F.normalize(base(x + 0.1 * torch.randn_like(x)), dim=1)
        with torch.no_grad():
            k = F.normalize(momentum(x + 0.1 * torch.randn_like(x)), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ torch.cat([queue, k.roll(1, 0)]).T], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(32, dtype=torch.long))
        opt.zero_grad()
        loss.backward()
        opt.step()
        queue = torch.cat([k, queue])[:512]
        with torch.no_grad():
            for a, b in zip(momentum.parameters(), base.parameters()):
                a.mul_(0.95).add_(b, alpha=0.05)
    return {"loss": loss.item()}
