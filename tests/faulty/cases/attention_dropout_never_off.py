import torch
from torch import nn
from torch.nn import functional as F

META = dict(
    title="scaled_dot_product_attention drops out in evaluation too",
    faults=["model.eval_noise"],
    where="layers.0",
)


class Layer(nn.Module):
    def __init__(self, ask):
        super().__init__()
        self.qkv, self.mix, self.ask = nn.Linear(16, 48), nn.Linear(16, 16), ask

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        p = 0.2 if self.training or not self.ask else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
        return x + self.mix(y.transpose(1, 2).flatten(2))


class Reader(nn.Module):
    def __init__(self, ask):
        super().__init__()
        self.emb = nn.Embedding(30, 16)
        self.layers = nn.Sequential(Layer(ask), nn.ReLU(), Layer(ask))
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.layers(self.emb(x)).amax(1))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    x = torch.randint(0, 30, (400, 10))
    y = (x == 7).any(1).long()
    model = Reader(ask=fixed)
    opt = torch.optim.AdamW(model.parameters(), 3e-3)
    history = []
    for epoch in range(5):
        model.train()
        for rows in torch.randperm(320).split(20):
            loss = F.cross_entropy(model(x[rows]), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
        model.eval()
        with torch.inference_mode():
            history.append((model(x[320:]).argmax(-1) == y[320:]).float().mean().item())
    return {"accuracy": history[-1]}
