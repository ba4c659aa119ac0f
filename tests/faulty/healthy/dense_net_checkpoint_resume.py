import io, torch
from torch import nn

META = dict(title="Stops, saves, builds everything anew, loads and goes on", looks_like="weights replaced, optimizer replaced")


def build():
    n = nn.Sequential(nn.Linear(9, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3))
    o = torch.optim.AdamW(n.parameters(), 3e-3)
    return n, o, torch.optim.lr_scheduler.CosineAnnealingLR(o, 240)


def train(seed):
    torch.manual_seed(seed)
    w = torch.randn(9, 3)
    n, o, s = build()
    for k in range(240):
        if k == 120:
            f = io.BytesIO()
            torch.save([z.state_dict() for z in (n, o, s)], f)
            f.seek(0)
            n, o, s = build()
            for z, d in zip((n, o, s), torch.load(f)):
                z.load_state_dict(d)
        x = torch.randn(32, 9)
        l = nn.functional.cross_entropy(n(x), (x @ w).argmax(1))
        o.zero_grad()
        l.backward()
        o.step()
        s.step()
    return {"l": l.item()}
