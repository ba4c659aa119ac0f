"""Small healthy programs, in which every fault of the catalogue can be planted."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def classifier(steps=60):
    """An MLP with dropout and ten classes on a DataLoader: Adam, clipping, a schedule by epoch, a validation after each."""
    torch.manual_seed(0)
    x = torch.randn(320, 12)
    y = (x @ torch.randn(12, 10)).argmax(1)
    loader = DataLoader(TensorDataset(x[:256], y[:256]), batch_size=16, shuffle=True)
    model = nn.Sequential(
        nn.Linear(12, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.7)
    for _ in range(-(-steps // 16)):
        model.train()
        for xb, yb in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        schedule.step()
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(x[256:]), y[256:])


def stepwise(steps=60):
    """A regression with SGD whose schedule advances with each step."""
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x @ torch.randn(8, 1)).squeeze(-1) + 0.05 * torch.randn(256)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % 256
        optimizer.zero_grad()
        F.mse_loss(model(x[rows]).squeeze(-1), y[rows]).backward()
        optimizer.step()
        schedule.step()


def convnet(steps=60):
    """A small convnet with batch norm, on pictures with a bright stripe."""
    torch.manual_seed(0)
    y = torch.arange(192) % 3
    x = 0.3 * torch.randn(192, 1, 9, 9)
    for i, label in enumerate(y.tolist()):
        x[i, 0, 3 * label : 3 * label + 3] += 1.0
    order = torch.randperm(192)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(294, 3),
    )
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for step in range(steps):
        rows = order[torch.arange(step * 24, step * 24 + 24) % 192]
        loss = loss_of(model(x[rows]), y[rows])
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()


class Reader(nn.Module):
    """A transformer of one causal block that reads letters and says the next."""

    def __init__(self, letters=12, width=24):
        super().__init__()
        self.embed = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.02 * torch.randn(10, width))
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters)

    def forward(self, letters):
        hidden = self.embed(letters) + self.place[: letters.shape[1]]
        q, k, v = (part.unsqueeze(1) for part in self.mix(hidden).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)
        return self.head(self.norm(hidden + self.out(mixed)))


def language(steps=60):
    """A tiny language model that learns to count on."""
    torch.manual_seed(0)
    text = (torch.arange(9)[None] + torch.randint(0, 12, (128, 1))) % 12
    model = Reader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01)
    for step in range(steps):
        batch = text[torch.arange(step * 16, step * 16 + 16) % 128]
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 12), batch[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def adversaries(steps=60):
    """A GAN on points of a line, with binary cross entropy on logits."""
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2), nn.Linear(16, 2))
    judge = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    makes = torch.optim.Adam(maker.parameters(), lr=1e-3, betas=(0.5, 0.9))
    judges = torch.optim.Adam(judge.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for _ in range(steps):
        real = torch.randn(32, 1) @ torch.tensor([[1.0, 0.5]]) + 0.1 * torch.randn(32, 2)
        made = maker(torch.randn(32, 4))
        judges.zero_grad()
        right = F.binary_cross_entropy_with_logits(judge(real), torch.ones(32, 1))
        wrong = F.binary_cross_entropy_with_logits(judge(made.detach()), torch.zeros(32, 1))
        (right + wrong).backward()
        judges.step()
        makes.zero_grad()
        F.binary_cross_entropy_with_logits(judge(made), torch.ones(32, 1)).backward()
        makes.step()


def accumulating(steps=60):
    """A binary classifier that adds up the gradients of three parts before each step."""
    torch.manual_seed(0)
    x = torch.randn(288, 10)
    y = (x[:, :3].sum(1) > 0).float()
    model = nn.Sequential(nn.Linear(10, 24), nn.GELU(), nn.Linear(24, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for part in range(3 * steps):
        rows = torch.arange(part * 16, part * 16 + 16) % 288
        loss = F.binary_cross_entropy_with_logits(model(x[rows]).squeeze(1), y[rows])
        (loss / 3).backward()
        if part % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()


def half(steps=60):
    """A classifier in float16 under autocast, with a scaler and clipping."""
    torch.manual_seed(0)
    x = torch.randn(256, 10)
    y = (x @ torch.randn(10, 3)).argmax(1)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % 256
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(x[rows])
        loss = F.cross_entropy(logits.float(), y[rows])
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()


def deep(steps=60):
    """Eight layers with skips between them."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.line = nn.LayerNorm(16), nn.Linear(16, 16)

        def forward(self, x):
            return x + torch.relu(self.line(self.norm(x)))

    model = nn.Sequential(nn.Linear(6, 16), *(Block() for _ in range(8)), nn.Linear(16, 2))
    x = torch.randn(256, 6)
    y = ((x[:, 0] * x[:, 1]) > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % 256
        optimizer.zero_grad()
        F.nll_loss(F.log_softmax(model(x[rows]), -1), y[rows]).backward()
        optimizer.step()
