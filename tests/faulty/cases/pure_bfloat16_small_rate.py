import torch
from torch import nn

META = dict(
    title="The whole model in bfloat16 and AdamW with a fine-tuning rate: updates are rounded away",
    faults=["precision.lost_updates"],
    where="AdamW",
    style="regression, model.to(bfloat16)",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    if not fixed:
        model = model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5 if not fixed else 1e-3)
    w = torch.randn(8, 1)
    for _ in range(250):
        x = torch.randn(64, 8)
        y = x @ w
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fixed):
            out = model(x if fixed else x.bfloat16())
        loss = (out.float() - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}
