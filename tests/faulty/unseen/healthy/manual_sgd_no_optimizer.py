import torch
from sklearn.datasets import load_digits

META = dict(title="No nn.Module, no torch.optim: raw tensors and a hand-written SGD update under no_grad",
            looks_like="no optimizer step ever, no module, gradients zeroed by hand", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    W1 = (torch.randn(64, 50) / 8).requires_grad_()
    b1 = torch.zeros(50, requires_grad=True)
    W2 = (torch.randn(50, 10) / 50 ** 0.5).requires_grad_()
    b2 = torch.zeros(10, requires_grad=True)
    params = [W1, b1, W2, b2]
    vel = [torch.zeros_like(p) for p in params]
    hist = []
    for step in range(350):
        i = torch.randint(0, 1400, (50,))
        logits = torch.tanh(x[i] @ W1 + b1) @ W2 + b2
        loss = (logits.logsumexp(1) - logits.gather(1, y[i, None]).squeeze(1)).mean()
        loss.backward()
        with torch.no_grad():
            for p, v in zip(params, vel):
                v.mul_(0.9).add_(p.grad)
                p -= 0.05 * v
                p.grad.zero_()
        hist.append(loss.item())
    with torch.no_grad():
        acc = ((torch.tanh(x[1400:] @ W1 + b1) @ W2 + b2).argmax(1) == y[1400:]).float().mean().item()
    return {"first": hist[0], "last": sum(hist[-20:]) / 20, "acc": acc}


def healthy(m):
    return m["acc"] > 0.85
