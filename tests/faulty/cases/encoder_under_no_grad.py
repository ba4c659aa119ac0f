import torch
from torch import nn

META = dict(title="no_grad around the encoder was meant for evaluation only", faults=["updates.frozen_parameters"], where="enc", style="encode method, Adam over both")


class Matcher(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Embedding(30, 16), nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        self.score = nn.Bilinear(16, 16, 1)

    def encode(self, ids, track):
        with torch.set_grad_enabled(track):
            return self.enc(ids)

    def forward(self, a, b, track=True):
        return self.score(self.encode(a, track), self.encode(b, track)).squeeze(1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = Matcher()
    opt = torch.optim.Adam(m.parameters(), lr=5e-3)
    for _ in range(200):
        a = torch.randint(0, 30, (64, 4))
        b = torch.where(torch.rand(64, 1) < 0.5, a, torch.randint(0, 30, (64, 4)))
        loss = nn.functional.binary_cross_entropy_with_logits(m(a, b, track=fixed), (a == b).all(1).float())
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
