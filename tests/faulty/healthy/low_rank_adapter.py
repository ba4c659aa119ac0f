import torch
from torch import nn

META = dict(title="LoRA: B starts at zero, so A gets no gradient in the first step, and the base is frozen", looks_like="zero and missing gradients")


class LoRA(nn.Module):
    def __init__(self, base, rank=4):
        super().__init__()
        self.base = base
        for p in base.parameters():
            p.requires_grad = False
        self.a = nn.Parameter(torch.randn(base.in_features, rank) / base.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(rank, base.out_features))

    def forward(self, x):
        return self.base(x) + x @ self.a @ self.b


def train(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(LoRA(nn.Linear(16, 32)), nn.ReLU(), LoRA(nn.Linear(32, 4)))
    opt = torch.optim.AdamW(net.parameters(), lr=5e-3)
    w = torch.randn(16, 4)
    for _ in range(250):
        x = torch.randn(48, 16)
        loss = nn.functional.cross_entropy(net(x), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
