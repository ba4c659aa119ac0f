import math

import torch
from torch import nn
from torch.nn.functional import mse_loss, scaled_dot_product_attention
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="Forecast of a series by attention without is_causal",
    faults=["model.causal_leak"],
    where="Forecaster",
)


class Forecaster(nn.Module):
    def __init__(self, causal):
        super().__init__()
        self.into, self.q, self.k, self.v = (nn.Linear(a, 16) for a in (2, 16, 16, 16))
        self.back = nn.Linear(16, 2)
        self.causal = causal

    def forward(self, series):
        h = torch.tanh(self.into(series) + torch.arange(series.shape[1])[:, None] / 20)
        h = h + scaled_dot_product_attention(self.q(h), self.k(h), self.v(h), is_causal=self.causal)
        return self.back(h)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    time = torch.arange(31) * 0.4 + torch.rand(300, 1) * 2 * math.pi
    walk = torch.randn(300, 31).cumsum(1) * 0.1
    data = torch.stack([time.sin() + walk, walk], -1)
    model = Forecaster(causal=fixed)
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(4):
        for (part,) in DataLoader(TensorDataset(data), batch_size=25, shuffle=True):
            loss = mse_loss(model(part[:, :-1]), part[:, 1:])
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
