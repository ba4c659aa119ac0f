import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

META = dict(
    title="Seven hidden sigmoid layers (Kaiming-uniform weights)",
    source="Glorot & Bengio 2010",
    family="gradients",
    faults=["gradients.vanishing"],
    where="",
    words=["vanishing gradients", "saturating activation in a deep net", "sigmoid in deep layers", "early layers receive no gradient", "loss plateau", "not learning"],
    location="MLP hidden layers with nn.Sigmoid: gradient of the first layer is orders of magnitude below that of the last",
    symptom="loss stays at ln(10) = 2.30, accuracy at chance",
)


class MLP(nn.Module):
    def __init__(self, act, depth=7, d=48):
        super().__init__()
        mods, last = [], 64
        for _ in range(depth):
            mods += [nn.Linear(last, d), act()]
            last = d
        self.hidden = nn.Sequential(*mods)
        self.out = nn.Linear(d, 10)
        for m in self.hidden:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_uniform_(m.weight, nonlinearity="relu")

    def forward(self, x):
        return self.out(self.hidden(x))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    ds = TensorDataset(torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target))
    tr, va = random_split(ds, [1400, 397])
    loader = DataLoader(tr, 64, shuffle=True)
    vloader = DataLoader(va, 397)
    net = MLP(nn.ReLU if fixed else nn.Sigmoid)
    opt = torch.optim.SGD(net.parameters(), lr=0.03, momentum=0.9)
    lossf = nn.CrossEntropyLoss()
    for epoch in range(18):
        net.train()
        for xb, yb in loader:
            loss = lossf(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    net.eval()
    with torch.no_grad():
        x, y = next(iter(vloader))
        acc = (net(x).argmax(1) == y).float().mean().item()
    return {"loss": loss.item(), "val_acc": acc}


def separates(buggy, fixed):
    return fixed["val_acc"] > 0.8 and buggy["val_acc"] < 0.3
