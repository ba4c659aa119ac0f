import torch
from torch import nn

META = dict(
    faults=["model.batch_mixing"],
    title="Set sorter: MultiheadAttention given (batch, items, dim) with the default layout",
    words=["attention over the batch axis", "batch_first missing", "samples of the batch are mixed", "attention mixes the batch"],
    where="",
    shows="the answer for one sample depends on the others; error does not fall",
)


class Encoder(nn.Module):
    def __init__(self, d=32, bf=True):
        super().__init__()
        self.emb = nn.Linear(1, d)
        self.layers = nn.ModuleList(
            nn.ModuleDict(dict(att=nn.MultiheadAttention(d, 4, batch_first=bf), n1=nn.LayerNorm(d), n2=nn.LayerNorm(d),
                               ff=nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, d)))) for _ in range(2))
        self.out = nn.Linear(d, 1)

    def forward(self, x):
        h = self.emb(x[..., None])
        for l in self.layers:
            n = l["n1"](h)
            h = h + l["att"](n, n, n, need_weights=False)[0]
            h = h + l["ff"](l["n2"](h))
        return self.out(h)[..., 0]


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Encoder(bf=fixed)
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for step in range(300):
        x = torch.randn(32, 10) + torch.randn(32, 1)
        y = x - x.mean(1, keepdim=True) + x.max(1, keepdim=True).values
        loss = (model(x) - y).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        history.append(loss.item())
    return {"first": history[0], "last": sum(history[-20:]) / 20}
