import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

META = dict(title="Heavy dropout and noise make validation better than training",
            looks_like="validation loss below training loss during the whole run", family="healthy")


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.2 * torch.randn_like(x) if self.training else x


def train(seed):
    torch.manual_seed(seed)
    d = load_digits()
    ds = TensorDataset(torch.tensor(d.data / 16).float(), torch.tensor(d.target))
    tr, va = random_split(ds, [1397, 400])
    net = nn.Sequential(Noise(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for ep in range(9):
        net.train()
        tot = 0.0
        for x, y in DataLoader(tr, 40, shuffle=True):
            loss = nn.functional.cross_entropy(net(x), y)
            opt.zero_grad(); loss.backward(); opt.step()
            tot += loss.item() * len(y) / 1397
        net.eval()
        with torch.no_grad():
            x, y = next(iter(DataLoader(va, 400)))
            o = net(x)
            v, acc = nn.functional.cross_entropy(o, y).item(), (o.argmax(1) == y).float().mean().item()
    return {"train_loss": tot, "val_loss": v, "val_acc": acc}
