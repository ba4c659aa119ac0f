import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["objective.summed_loss"],
    title="Autoencoder criterion set to sum with the step size of a mean",
    words=["loss reduced with sum", "reduction='sum' with a learning rate for the mean", "learning rate too high for a summed loss", "step size too large"],
    where="",
    shows="loss explodes or sticks at the mean image, gradient norms in the thousands",
)


class AE(nn.Module):
    def __init__(self, z=12):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, z))
        self.dec = nn.Sequential(nn.Linear(z, 48), nn.Tanh(), nn.Linear(48, 64), nn.Sigmoid())

    def forward(self, x):
        return self.dec(self.enc(x))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.tensor(load_digits().data / 16).float()
    dl = DataLoader(TensorDataset(x), batch_size=64, shuffle=True)
    m = AE()
    crit = nn.MSELoss(reduction="mean" if fixed else "sum")
    opt = torch.optim.SGD(m.parameters(), lr=5.0, momentum=0.9)
    for ep in range(13):
        for (xb,) in dl:
            loss = crit(m(xb), xb)
            opt.zero_grad()
            loss.backward()
            opt.step()
    with torch.no_grad():
        return {"mse": (m(x) - x).square().mean().item(), "variance": x.var(0).mean().item()}
