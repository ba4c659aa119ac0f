import torch
import torch.nn as nn
import torch.nn.functional as F
from dataclasses import dataclass

META = dict(
    title="Character n-gram model with learning rate 1e-9 in the config",
    source="common configuration slip",
    family="optimizer",
    faults=["updates.update_scale"],
    where="",
    words=["learning rate too small", "learning rate too low", "updates too small", "update to weight ratio too small", "loss plateau", "not learning", "weights practically unchanged"],
    location="TrainConfig.learning_rate = 1e-9 (AdamW)",
    symptom="loss stays at its initial value, weights do not move although gradients are healthy",
)


@dataclass
class TrainConfig:
    block_size: int = 4
    n_embd: int = 12
    n_hidden: int = 64
    max_iters: int = 250
    batch_size: int = 64
    learning_rate: float = 1e-9


TEXT = ("the quick brown fox jumps over the lazy dog while the small cat sleeps under the old oak tree and "
        "the river runs down to the sea where ships wait for the wind to turn and carry them home again ") * 6


class NGram(nn.Module):
    def __init__(self, cfg, vocab):
        super().__init__()
        self.wte = nn.Embedding(vocab, cfg.n_embd)
        self.mlp = nn.Sequential(nn.Linear(cfg.block_size * cfg.n_embd, cfg.n_hidden), nn.Tanh(), nn.Linear(cfg.n_hidden, vocab))

    def forward(self, idx, targets=None):
        logits = self.mlp(self.wte(idx).flatten(1))
        return logits, None if targets is None else F.cross_entropy(logits, targets)


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    cfg = TrainConfig(learning_rate=3e-3) if fixed else TrainConfig()
    chars = sorted(set(TEXT))
    data = torch.tensor([chars.index(c) for c in TEXT])
    model = NGram(cfg, len(chars))
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.learning_rate)
    losses = []
    for it in range(cfg.max_iters):
        ix = torch.randint(len(data) - cfg.block_size, (cfg.batch_size,))
        xb = torch.stack([data[i:i + cfg.block_size] for i in ix])
        yb = data[ix + cfg.block_size]
        _, loss = model(xb, yb)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {"first": losses[0], "last": sum(losses[-10:]) / 10}


def separates(buggy, fixed):
    return buggy["last"] > 0.95 * buggy["first"] and fixed["last"] < 0.4 * fixed["first"]
