import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

META = dict(
    faults=["model.eval_noise"],
    title="Functional dropout stays on when the model is evaluated",
    words=["dropout active in validation", "F.dropout without training flag", "dropout on at evaluation", "stochastic validation"],
    where="",
    shows="two evaluations of the same data differ; validation accuracy below what the weights can do",
)


class Net(nn.Module):
    def __init__(self, always_on):
        super().__init__()
        self.l1, self.l2, self.l3 = nn.Linear(64, 64), nn.Linear(64, 48), nn.Linear(48, 10)
        self.always_on = always_on

    def drop(self, h):
        return F.dropout(h, 0.6) if self.always_on else F.dropout(h, 0.6, self.training)

    def forward(self, x):
        h = self.drop(F.relu(self.l1(x)))
        h = self.drop(F.relu(self.l2(h)))
        return self.l3(h)


def evaluate(model, x, y):
    model.eval()
    with torch.inference_mode():
        o = model(x)
    model.train()
    return F.cross_entropy(o, y).item(), (o.argmax(1) == y).float().mean().item()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.from_numpy(d.data).float() / 16, torch.from_numpy(d.target)
    p = torch.randperm(len(y))
    (xt, xv), (yt, yv) = x[p].split([1400, 397]), y[p].split([1400, 397])
    model = Net(always_on=not fixed)
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    for ep in range(12):
        for i in torch.randperm(1400).split(70):
            loss = F.cross_entropy(model(xt[i]), yt[i])
            opt.zero_grad()
            loss.backward()
            opt.step()
        v = evaluate(model, xv, yv)
    w = evaluate(model, xv, yv)
    return {"train_loss": loss.item(), "val_loss": v[0], "val_acc": v[1], "repeat_gap": abs(v[0] - w[0])}
