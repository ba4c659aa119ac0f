import torch
import torch.nn as nn

META = dict(
    title="optimizer.step() called before loss.backward() in each iteration",
    source="order slip in hand-written loops",
    family="wiring",
    faults=["calls.misordered_calls"],
    where="",
    words=["step before backward", "optimizer.step called before backward", "wrong order of calls", "misordered calls", "gradients cleared before the step", "parameters never updated", "weights never change", "not learning", "loss plateau"],
    location="loop: zero_grad(); loss = ...; step(); backward()",
    symptom="every step sees cleared gradients, weights never change, loss flat",
)

lr, iters, batch = 0.03, 250, 50


def xor_batch(n):
    bits = torch.randint(0, 2, (n, 4)).float()
    return bits * 2 - 1 + 0.1 * torch.randn(n, 4), bits.sum(1, keepdim=True) % 2


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    opt = torch.optim.NAdam(net.parameters(), lr=lr)
    trace = []
    for i in range(iters):
        x, y = xor_batch(batch)
        opt.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(net(x), y)
        if fixed:
            loss.backward()
            opt.step()
        else:
            opt.step()
            loss.backward()
        trace.append(loss.item())
    return {"first": trace[0], "last": sum(trace[-10:]) / 10}


def separates(buggy, fixed):
    return buggy["last"] > 0.6 and fixed["last"] < 0.2
