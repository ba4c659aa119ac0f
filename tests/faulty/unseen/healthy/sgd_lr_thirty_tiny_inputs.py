import torch
import torch.nn as nn

META = dict(title="Logistic regression on features of size 0.05 with SGD lr=30",
            looks_like="learning rate far too large on paper, large updates relative to the initial weights", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    w = torch.randn(20)
    x = 0.05 * torch.randn(3000, 20)
    y = ((x @ w) * 20 + 0.5 * torch.randn(3000) > 0).float()
    lin = nn.Linear(20, 1)
    nn.init.normal_(lin.weight, std=0.01)
    opt = torch.optim.SGD([{"params": [lin.weight], "lr": 30.0}, {"params": [lin.bias], "lr": 0.1}])
    hist = []
    for step in range(300):
        i = torch.randint(0, 2500, (64,))
        loss = nn.functional.binary_cross_entropy_with_logits(lin(x[i]).squeeze(1), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        hist.append(loss.item())
    with torch.no_grad():
        acc = ((lin(x[2500:]).squeeze(1) > 0).float() == y[2500:]).float().mean().item()
    return {"loss": sum(hist[-20:]) / 20, "acc": acc}


def healthy(m):
    return m["acc"] > 0.88 and m["loss"] < 0.3
