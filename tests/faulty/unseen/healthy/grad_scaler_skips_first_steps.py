import torch
import torch.nn as nn

META = dict(title="Mixed precision with an initial loss scale of 2^24: the first steps overflow and are skipped by the scaler",
            looks_like="inf gradients in the first iterations, weights unchanged, scheduler seems ahead of the optimizer", family="healthy")


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    w = torch.randn(16, 4)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 24, growth_interval=100)
    losses, skipped = [], 0
    for step in range(260):
        x = torch.randn(64, 16)
        y = (x @ w).argmax(1)
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(x)
        loss = nn.functional.cross_entropy(out.float(), y)
        opt.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        before = scaler.get_scale()
        scaler.step(opt)
        scaler.update()
        skipped += scaler.get_scale() < before
        losses.append(loss.item())
    return {"skipped": skipped, "loss": sum(losses[-20:]) / 20}


def healthy(m):
    return m["skipped"] >= 2 and m["loss"] < 0.35
