import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["calls.misordered_calls"],
    title="Sanity validation puts a batch-norm CNN into eval for the whole run",
    words=["eval mode during training", "model.train() never called", "batch norm in eval mode while training", "running statistics frozen"],
    where="",
    shows="batch norm uses its initial statistics (0,1); training crawls or is unstable",
)


def conv(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.feats = nn.Sequential(conv(1, 8), conv(8, 12), nn.MaxPool2d(2), conv(12, 16), conv(16, 16), nn.AdaptiveAvgPool2d(2))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.feats(x).flatten(1))


@torch.no_grad()
def validate(model, loader):
    model.eval()
    return sum((model(x).argmax(1) == y).sum().item() for x, y in loader) / len(loader.dataset)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    p = torch.randperm(1797)
    x, y = torch.tensor(d.images / 16).float()[:, None][p], torch.tensor(d.target)[p]
    tl = DataLoader(TensorDataset(x[:1400], y[:1400]), 40, shuffle=True)
    vl = DataLoader(TensorDataset(x[1400:], y[1400:]), 397)
    net = ConvNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    validate(net, vl)
    for epoch in range(4):
        if fixed:
            net.train()
        for xb, yb in tl:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(net(xb), yb)
            loss.backward()
            opt.step()
        acc = validate(net, vl)
    return {"loss": loss.item(), "acc": acc}
