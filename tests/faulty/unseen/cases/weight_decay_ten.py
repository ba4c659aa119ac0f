import torch
import torch.nn as nn
from sklearn.datasets import load_digits

META = dict(
    title="AdamW with weight_decay=10",
    source="weight_decay meant for another normalisation (1e-2 written as 10)",
    family="optimizer",
    faults=["updates.weight_decay", "updates.update_scale", "losses.plateau"],
    where="",
    words=["weight decay too large", "weight decay too strong", "weights shrink to zero", "weights collapse", "loss plateau", "not learning", "vanishing gradients"],
    location="torch.optim.AdamW(lr=1e-2, weight_decay=10.0)",
    symptom="weight norms fall by 10% a step and collapse, the loss stays high",
)


class KerasLike:
    def __init__(self, *layers):
        self.net = nn.Sequential(*layers)

    def compile(self, optimizer, loss):
        self.optimizer, self.loss = optimizer, loss
        return self

    def fit(self, x, y, epochs, batch_size):
        history = []
        for _ in range(epochs):
            perm, acc = torch.randperm(len(x)), 0.0
            for a in range(0, len(x), batch_size):
                j = perm[a:a + batch_size]
                self.optimizer.zero_grad()
                value = self.loss(self.net(x[j]), y[j])
                value.backward()
                self.optimizer.step()
                acc += value.item() * len(j) / len(x)
            history.append(acc)
        return history


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16, dtype=torch.float32), torch.tensor(d.target)
    m = KerasLike(nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, 10))
    m.compile(torch.optim.AdamW(m.net.parameters(), lr=1e-2, weight_decay=0.01 if fixed else 10.0), nn.CrossEntropyLoss())
    hist = m.fit(x[:1400], y[:1400], epochs=6, batch_size=50)
    with torch.no_grad():
        acc = (m.net(x[1400:]).argmax(1) == y[1400:]).float().mean().item()
    return {"loss": hist[-1], "acc": acc}


def separates(buggy, fixed):
    return fixed["loss"] < 0.2 and buggy["loss"] > 1.0
