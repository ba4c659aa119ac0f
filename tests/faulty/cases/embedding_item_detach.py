import torch
from torch import nn

META = dict(title="attention weights turned to numpy and back", faults=["updates.frozen_parameters"], where="att")


class Pool(nn.Module):
    def __init__(s, cut):
        super().__init__()
        s.att = nn.Linear(8, 1)
        s.out = nn.Linear(8, 2)
        s.cut = cut

    def forward(s, x):
        w = s.att(x).softmax(1)
        if s.cut:
            w = torch.from_numpy(w.detach().numpy())
        return s.out((w * x).sum(1))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Pool(not fixed)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for _ in range(150):
        x = torch.randn(32, 6, 8)
        x[:, :, 0] *= 3
        y = (x[torch.arange(32), x[:, :, 0].argmax(1), 1] > 0).long()
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
