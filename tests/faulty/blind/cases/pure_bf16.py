import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["precision.lost_updates"],
    title="Matrix factorisation with tables cast to bfloat16 and a small Adam step",
    words=["bfloat16 weights do not move", "update lost to rounding", "bf16 precision too low for the update", "no float32 master weights"],
    where="",
    shows="gradients are normal, most weights stay bit-identical after a step, loss stalls",
)


class MF(nn.Module):
    def __init__(self, n, m, d=512):
        super().__init__()
        self.u, self.v = nn.Embedding(n, d), nn.Embedding(m, d)

    def forward(self, i, j):
        return (self.u(i) * self.v(j)).sum(-1) / 22.6


def train(seed, fixed=False):
    torch.manual_seed(seed)
    a, b = torch.randn(60, 2), torch.randn(50, 2)
    i, j = torch.meshgrid(torch.arange(60), torch.arange(50), indexing="ij")
    i, j = i.flatten(), j.flatten()
    rating = (a[i] * b[j]).sum(-1)
    model = MF(60, 50)
    if not fixed:
        model = model.to(torch.bfloat16)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for step in range(400):
        k = torch.randint(0, 3000, (1500,))
        loss = F.mse_loss(model(i[k], j[k]).float(), rating[k])
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return {"first": losses[0], "last": sum(losses[-20:]) / 20}
