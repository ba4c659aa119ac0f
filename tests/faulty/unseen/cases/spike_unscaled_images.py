import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

META = dict(
    title="One shard of the image stream is left in the 0..255 range, the others are 0..1",
    source="common data-loading slip (ToTensor scales uint8 but not float input)",
    family="data",
    faults=["losses.loss_spike", "gradients.explosion"],
    where="",
    words=["loss spike", "bad batch", "unscaled inputs", "inputs not normalised", "outlier in the inputs", "batch statistics differ from the others", "gradient spike", "exploding gradients"],
    location="shards(): shard 6 is not divided by 255",
    symptom="loss jumps by orders of magnitude at the batches of shard 6 and recovers slowly",
)


def shards(x, y, per, fixed):
    """Yields batches from ten shards that were written by different workers."""
    for s, (xs, ys) in enumerate(zip(x.chunk(10), y.chunk(10))):
        xs = xs * (255 / 16)
        if fixed or s != 6:
            xs = xs / 255
        for a in range(0, len(xs), per):
            yield xs[a:a + per], ys[a:a + per]


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 12, 3)
        self.c2 = nn.Conv2d(12, 24, 3)
        self.fc = nn.Linear(24 * 16, 10)

    def forward(self, x):
        return self.fc(F.gelu(self.c2(F.gelu(self.c1(x)))).flatten(1))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    order = torch.randperm(1797)
    x = torch.tensor(d.images, dtype=torch.float32).unsqueeze(1)[order]
    y = torch.tensor(d.target)[order]
    net = ConvNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    seen = []
    for epoch in range(3):
        for xb, yb in shards(x[:1500], y[:1500], 25, fixed):
            loss = F.cross_entropy(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            seen.append(loss.item())
    with torch.no_grad():
        acc = (net(x[1500:] / 16).argmax(1) == y[1500:]).float().mean().item()
    return {"max_loss": max(seen), "acc": acc}


def separates(buggy, fixed):
    return not buggy["max_loss"] < 10 and fixed["max_loss"] < 4 and fixed["acc"] > 0.85
