import torch
from torch import nn

META = dict(
    title="optimizer.step() where scaler.step(optimizer) was meant: the loss scale is still in the gradients",
    faults=["calls.misordered_calls"],
    where="step",
    style="amp",
)


class Trainer:
    def __init__(self, fixed):
        self.fixed = fixed
        self.net = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 4))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def training_step(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.net(x)
        loss = nn.functional.cross_entropy(logits.float(), y)
        self.scaler.scale(loss).backward()
        if self.fixed:
            self.scaler.step(self.optimizer)
        else:
            self.optimizer.step()
        self.scaler.update() if self.fixed else None
        return loss.detach()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    trainer = Trainer(fixed)
    w = torch.randn(10, 4)
    for _ in range(160):
        x = torch.randn(64, 10)
        loss = trainer.training_step(x, (x @ w).argmax(1))
    return {"loss": loss.item()}
