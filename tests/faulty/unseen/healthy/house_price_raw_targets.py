import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Regression on raw noise-free targets in the thousands: first loss around 1e7, gradients shrink by about a million",
            looks_like="huge initial loss and gradient norms, then 'vanishing' gradients and tiny updates", family="healthy")


class Expanded(nn.Module):
    """a linear model on the inputs and their pairwise products"""

    def __init__(self, n):
        super().__init__()
        self.n = n
        self.lin = nn.Linear(n + n * (n - 1) // 2, 1)

    def forward(self, x):
        i, j = torch.triu_indices(self.n, self.n, 1)
        return self.lin(torch.cat([x, x[:, i] * x[:, j]], 1)).squeeze(1)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    x = torch.randn(1500, 7)
    price = 3000 + 900 * x[:, 0] - 400 * x[:, 1] + 300 * x[:, 2] * x[:, 3]
    loader = DataLoader(TensorDataset(x, price), batch_size=100, shuffle=True)
    model = Expanded(7)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    log, grads = [], []
    for epoch in range(16):
        for xb, yb in loader:
            loss = nn.functional.mse_loss(model(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            log.append(loss.item())
            grads.append(model.lin.weight.grad.norm().item())
    return {"first": log[0], "last": sum(log[-20:]) / 20, "grad_shrink": grads[0] / (sum(grads[-20:]) / 20)}


def healthy(m):
    return m["first"] > 5e6 and m["last"] < 1.0 and m["grad_shrink"] > 1e5
