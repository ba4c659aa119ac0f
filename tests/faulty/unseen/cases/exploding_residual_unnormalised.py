import torch
import torch.nn as nn

META = dict(
    title="30 residual blocks without any normalisation or residual scaling",
    source="Zhang et al. 2019, 'Fixup initialization' (unnormalised residual nets explode)",
    family="gradients",
    faults=["activations.spread", "gradients.explosion", "updates.update_scale"],
    where="",
    words=["exploding gradients", "missing normalisation", "no normalisation layers", "activations grow with depth", "huge initial loss", "NaN or inf loss", "loss divergence"],
    location="ResBlock: x + fc2(relu(fc1(x))) with kaiming init and nn.Identity in place of the norm",
    symptom="the signal grows by a factor per block; initial loss and gradient norms are enormous and training blows up",
)


class ResBlock(nn.Module):
    def __init__(self, d, norm):
        super().__init__()
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.fc1, self.fc2 = nn.Linear(d, d), nn.Linear(d, d)
        nn.init.kaiming_normal_(self.fc1.weight)
        nn.init.kaiming_normal_(self.fc2.weight)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.norm(x))))


class Tower(nn.Module):
    def __init__(self, norm, d=32, n=30, classes=5):
        super().__init__()
        self.stem = nn.Linear(16, d)
        self.blocks = nn.ModuleList(ResBlock(d, norm) for _ in range(n))
        self.final = nn.LayerNorm(d) if norm else nn.Identity()
        self.head = nn.Linear(d, classes)

    def forward(self, x):
        x = self.stem(x)
        for b in self.blocks:
            x = b(x)
        return self.head(self.final(x))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    protos = 1.5 * torch.randn(5, 16)
    net = Tower(norm=fixed)
    sgd = torch.optim.SGD(net.parameters(), lr=0.02)
    tape = []
    for _ in range(150):
        y = torch.randint(0, 5, (64,))
        x = protos[y] + torch.randn(64, 16)
        loss = nn.functional.cross_entropy(net(x), y)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        tape.append(loss.item())
    return {"initial": tape[0], "final": sum(tape[-10:]) / 10}


def separates(buggy, fixed):
    return fixed["final"] < 0.6 and buggy["initial"] > 1e4 and not buggy["final"] < 1.2
