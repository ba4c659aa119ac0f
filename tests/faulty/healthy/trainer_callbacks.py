import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(title="Trainer with callbacks: sanity validation, checkpoint, early stop, lr warm-up then plateau by epoch")


class Trainer:
    def __init__(s, m):
        s.m = m
        s.o = torch.optim.RAdam(m.parameters(), lr=3e-3)
        s.s = torch.optim.lr_scheduler.ReduceLROnPlateau(s.o, patience=1, factor=0.5)
        s.best = 9

    def step(s, b):
        return nn.functional.cross_entropy(s.m(b[0]), b[1])

    def val(s, dl):
        was = s.m.training
        s.m.eval()
        with torch.inference_mode():
            r = sum(s.step(b).item() for b in dl) / len(dl)
        s.m.train(was)
        return r

    def fit(s, tr, va):
        s.val(va)
        for e in range(6):
            s.m.train()
            for b in tr:
                s.o.zero_grad()
                l = s.step(b)
                l.backward()
                nn.utils.clip_grad_value_(s.m.parameters(), 0.5)
                s.o.step()
            v = s.val(va)
            s.s.step(v)
            if v < s.best:
                s.best = v
                s.ck = {k: t.clone() for k, t in s.m.state_dict().items()}
        s.m.load_state_dict(s.ck)
        return s.best


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(700, 12)
    y = (x[:, :4].sum(1) > 0).long()
    m = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 2))
    return {
        "v": Trainer(m).fit(
            DataLoader(TensorDataset(x[:500], y[:500]), 25, shuffle=True), DataLoader(TensorDataset(x[500:], y[500:]), 50)
        )
    }
