import torch
from torch import nn

META = dict(
    title="Only a prompt is trained through a net nobody froze, in train mode",
    looks_like="gradients for parameters in no optimizer",
)


def train(seed):
    torch.manual_seed(seed)
    lm = nn.GRU(8, 24, batch_first=True)
    head = nn.Linear(24, 4)
    prompt = nn.Parameter(torch.randn(1, 3, 8) * 0.1)
    opt = torch.optim.Adam([prompt], lr=5e-2)
    for _ in range(150):
        x = torch.randn(24, 4, 8)
        l = nn.functional.cross_entropy(head(lm(torch.cat([x, prompt.expand(24, -1, -1)], 1))[0][:, -1]), torch.full((24,), 2))
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"l": l.item()}
