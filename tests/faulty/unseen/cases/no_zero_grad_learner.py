import torch
import torch.nn as nn
import torch.nn.functional as F

META = dict(
    title="fastai-like Learner whose callback order dropped the zero_grad event",
    source="common slip when a training loop is split into callbacks",
    family="gradients",
    faults=["gradients.stale_gradients"],
    where="",
    words=["missing zero_grad", "gradients accumulate across iterations", "stale gradients never cleared", "stale gradients"],
    location="Learner.one_batch: no callback calls opt.zero_grad()",
    symptom="gradient norm grows, updates overshoot, the loss oscillates and does not settle",
)


class Callback:
    def before_batch(self, learn): ...
    def after_loss(self, learn): ...
    def after_batch(self, learn): ...


class ZeroGrad(Callback):
    def before_batch(self, learn):
        learn.opt.zero_grad()


class Step(Callback):
    def after_loss(self, learn):
        learn.loss.backward()
        learn.opt.step()


class History(Callback):
    def __init__(self):
        self.losses = []

    def after_batch(self, learn):
        self.losses.append(learn.loss.item())


class Learner:
    def __init__(self, model, opt, cbs):
        self.model, self.opt, self.cbs = model, opt, cbs

    def __call__(self, event):
        for cb in self.cbs:
            getattr(cb, event)(self)

    def one_batch(self, x, y):
        self("before_batch")
        self.loss = F.huber_loss(self.model(x), y)
        self("after_loss")
        self("after_batch")


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 40), nn.SELU(), nn.Linear(40, 3))
    w = 0.35 * torch.randn(8, 3)
    hist = History()
    cbs = ([ZeroGrad()] if fixed else []) + [Step(), hist]
    learn = Learner(model, torch.optim.SGD(model.parameters(), lr=0.1), cbs)
    for _ in range(400):
        x = torch.randn(64, 8)
        learn.one_batch(x, torch.tanh(x @ w) * 2 + x[:, :3])
    return {"start": hist.losses[0], "end": sum(hist.losses[-30:]) / 30}


def separates(buggy, fixed):
    return fixed["end"] < 0.4 * fixed["start"] and not buggy["end"] < 3 * fixed["end"]
