import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["updates.weight_decay"],
    title="SGD classifier with a decay coefficient three orders too large",
    words=["weight decay too strong", "weight decay dominates", "weights shrink to zero", "regularisation too strong"],
    where="",
    shows="weight norms fall towards zero, loss returns to log(10)",
)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self, wd):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=wd)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor((d.data - 5) / 6).float(), torch.tensor(d.target)
    p = torch.randperm(len(y))
    x, y = x[p], y[p]
    m = Classifier()
    opt = m.configure_optimizers(5e-4 if fixed else 0.5)
    for epoch in range(8):
        for batch in DataLoader(TensorDataset(x[:1400], y[:1400]), 56, shuffle=True):
            loss = m.training_step(batch)
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        acc = (m(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
        norm = sum(q.norm().item() for q in m.parameters())
    return {"loss": loss.item(), "acc": acc, "norm": norm}
