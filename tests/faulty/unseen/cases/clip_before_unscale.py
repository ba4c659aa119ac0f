import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="Gradients clipped while still multiplied by the loss scale",
    source="torch.amp documentation, 'Gradient clipping' (unscale_ first)",
    family="precision",
    faults=["calls.misordered_calls"],
    where="",
    words=["clipping before unscale", "clip_grad_norm_ on scaled gradients", "missing scaler.unscale_ before clipping", "wrong order of calls", "misordered calls", "updates too small", "loss plateau", "not learning"],
    location="loop: scaler.scale(loss).backward(); clip_grad_norm_(1.0); scaler.step(opt) without scaler.unscale_(opt)",
    symptom="clipped norm 1 / 65536 after unscaling: steps practically zero, loss hardly moves",
)


class Mixer(nn.Module):
    def __init__(self, tokens=6, dim=16, classes=5):
        super().__init__()
        self.inp = nn.Linear(4, dim)
        self.tok = nn.Linear(tokens, tokens)
        self.ch = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        h = self.inp(x)
        h = h + self.tok(h.transpose(1, 2)).transpose(1, 2)
        h = h + self.ch(h)
        return self.head(h.mean(1))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    protos = torch.randn(5, 6, 4)
    model = Mixer()
    opt = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.8)
    scaler = torch.amp.GradScaler("cpu")
    losses = []
    for step in range(200):
        y = torch.randint(0, 5, (40,))
        x = protos[y] + 0.7 * torch.randn(40, 6, 4)
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y)
        opt.zero_grad()
        scaler.scale(loss).backward()
        if fixed:
            scaler.unscale_(opt)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
        losses.append(loss.item())
    return {"first": losses[0], "last": sum(losses[-10:]) / 10}


def separates(buggy, fixed):
    return buggy["last"] > 0.8 * buggy["first"] and fixed["last"] < 0.3
