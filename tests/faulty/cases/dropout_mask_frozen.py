import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    title="seed_everything at the top of training_step: dropout drops the same units in every step",
    faults=["batches.reseeding"],
    where="torch.manual_seed",
    style="trainer class, DataLoader",
)


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))

    def training_step(self, batch, seed):
        if seed is not None:
            torch.manual_seed(seed)
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randn(600, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(x, y), batch_size=30, shuffle=True, generator=order)
    module = Module()
    opt = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(8):
        for batch in loader:
            loss = module.training_step(batch, None if fixed else 42)
            opt.zero_grad()
            loss.backward()
            opt.step()
    return {"loss": loss.item()}
