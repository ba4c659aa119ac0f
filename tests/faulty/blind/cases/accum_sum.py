import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

META = dict(
    faults=["objective.summed_loss"],
    title="Micro-batches accumulated without dividing by their number",
    words=["gradient accumulation without dividing", "loss not divided by accumulation steps", "accumulated gradients not averaged", "effective step too large"],
    where="",
    shows="gradient sixteen times as large as that of the big batch; training unstable",
)
ACCUM = 16


def train(seed, fixed=False):
    torch.manual_seed(seed)
    w = torch.randn(12, 3)
    x = torch.randn(1024, 12)
    y = torch.tanh(x @ w * 0.4) + 0.05 * torch.randn(1024, 3)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    logs = []
    for epoch in range(12):
        opt.zero_grad()
        for k, (xb, yb) in enumerate(loader, 1):
            loss = nn.functional.mse_loss(model(xb), yb)
            logs.append(loss.item())
            (loss / ACCUM if fixed else loss).backward()
            if k % ACCUM == 0:
                opt.step()
                opt.zero_grad()
    return {"first": logs[0], "last": sum(logs[-64:]) / 64}
