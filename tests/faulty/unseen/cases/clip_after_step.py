import torch
import torch.nn as nn

META = dict(
    title="Gradient clipping after the step, on heavy-tailed regression data",
    source="order slip; clip_grad_norm_ has no effect after step",
    family="wiring",
    faults=["calls.misordered_calls"],
    where="",
    words=["clipping after the step", "gradient clipping has no effect", "clip_grad_norm_ called after optimizer.step", "wrong order of calls", "misordered calls", "exploding gradients", "loss spike", "unclipped gradients", "NaN or inf loss", "loss divergence"],
    location="loop: backward(); step(); clip_grad_norm_(); zero_grad()",
    symptom="single batches with gradient norms in the thousands reach the step unclipped; the loss explodes",
)


def heavy(n, w):
    x = torch.randn(n, 8) * torch.distributions.StudentT(1.6).sample((n, 1)).abs().clamp(max=25)
    return x, x @ w


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    w = torch.randn(8, 1)
    net = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.3), nn.Linear(16, 1))
    opt = torch.optim.SGD(net.parameters(), lr=0.02)
    seen = []
    for step in range(300):
        x, y = heavy(32, w)
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        if fixed:
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
        else:
            opt.step()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.zero_grad()
        seen.append(loss.item())
    xt = torch.randn(500, 8)
    with torch.no_grad():
        test = nn.functional.mse_loss(net(xt), xt @ w).item()
    return {"test_mse": test, "var": (xt @ w).var().item()}


def separates(buggy, fixed):
    return fixed["test_mse"] < 0.5 * fixed["var"] and not buggy["test_mse"] < buggy["var"]
