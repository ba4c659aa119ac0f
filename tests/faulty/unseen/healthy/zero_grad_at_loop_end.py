import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

META = dict(title="zero_grad at the end of the iteration, behind logging and the scheduler",
            looks_like="no zero_grad between forward and backward, first backward without a preceding zero_grad", family="healthy")


class Sines(Dataset):
    def __init__(self, n):
        self.x = torch.rand(n, 3) * 4 - 2
        self.y = torch.stack([torch.sin(self.x.sum(1)), self.x.prod(1) / 3], 1)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"inputs": self.x[i], "targets": self.y[i]}


def train(seed: int) -> dict:
    torch.manual_seed(seed)
    dl = DataLoader(Sines(1280), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=20 * len(dl))
    log = []
    for epoch in range(20):
        for batch in dl:
            loss = nn.functional.smooth_l1_loss(model(batch["inputs"]), batch["targets"])
            loss.backward()
            optimizer.step()
            scheduler.step()
            log.append(loss.item())
            optimizer.zero_grad(set_to_none=False)
    return {"first": log[0], "last": sum(log[-20:]) / 20}


def healthy(m):
    return m["last"] < 0.3 * m["first"]
