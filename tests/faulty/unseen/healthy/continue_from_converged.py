import torch
import torch.nn as nn

META = dict(title="Training resumed from converged weights: loss flat at the noise floor, tiny updates",
            looks_like="plateau from the first step on, not learning, initial loss far below the expected value", family="healthy")


def batch(n, w):
    x = torch.randn(n, 12)
    return x, x @ w + 0.5 * torch.randn(n, 1)


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    w = torch.randn(12, 1)
    model = nn.Linear(12, 1)
    with torch.no_grad():
        model.weight.copy_((w + 0.01 * torch.randn_like(w)).t())  # as loaded from a finished run
        model.bias.fill_(0.003)
    opt = torch.optim.Adam(model.parameters(), lr=2e-4)
    hist = []
    for step in range(250):
        x, y = batch(64, w)
        loss = nn.functional.mse_loss(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    return {"first50": sum(hist[:50]) / 50, "last50": sum(hist[-50:]) / 50}


def healthy(m):
    return 0.2 < m["last50"] < 0.3 and 0.2 < m["first50"] < 0.3
