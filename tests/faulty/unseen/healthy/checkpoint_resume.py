import io
import torch
import torch.nn as nn

META = dict(title="Checkpoint saved mid-way, a new model and a new optimizer load it and training goes on",
            looks_like="weights overwritten outside the optimizer, old model stops changing, optimizer exchanged", family="healthy")


def build():
    model = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 5))
    return model, torch.optim.Adam(model.parameters(), lr=6e-3)


def steps(model, opt, rot, n):
    out = []
    for _ in range(n):
        x = torch.randn(40, 5)
        loss = (model(x) - torch.tanh(x @ rot)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        out.append(loss.item())
    return out


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    rot = torch.randn(5, 5)
    model, opt = build()
    a = steps(model, opt, rot, 150)
    buf = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, buf)
    buf.seek(0)
    model2, opt2 = build()
    ck = torch.load(buf)
    model2.load_state_dict(ck["model"])
    opt2.load_state_dict(ck["opt"])
    b = steps(model2, opt2, rot, 200)
    return {"first": a[0], "at_save": sum(a[-10:]) / 10, "resumed": b[0], "last": sum(b[-10:]) / 10}


def healthy(m):
    return m["resumed"] < 2 * m["at_save"] and m["last"] < 0.15 * m["first"]
