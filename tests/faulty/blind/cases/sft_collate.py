import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

META = dict(
    faults=["objective.ignored_labels"],
    title="Instruction tuning in small: the collator masks the answers too",
    words=["all labels ignored", "labels all -100", "loss mask covers everything", "no supervised tokens"],
    where="",
    shows="loss exactly zero, gradients zero, weights do not move",
)


class Pairs(Dataset):
    def __init__(self, n, seed):
        g = torch.Generator().manual_seed(seed)
        self.q = torch.randint(2, 12, (n, 5), generator=g)

    def __len__(self):
        return len(self.q)

    def __getitem__(self, i):
        q = self.q[i]
        return q, q.flip(0)


class Collator:
    def __init__(self, whole):
        self.whole = whole

    def __call__(self, items):
        ids = torch.stack([torch.cat([q, torch.tensor([1]), a]) for q, a in items])
        labels = ids[:, 1:].clone()
        for i, (q, a) in enumerate(items):
            n_prompt = len(q)
            if self.whole:
                n_prompt += len(a)
            labels[i, :n_prompt] = -100
        return ids[:, :-1], labels


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(12, 32)
        self.r = nn.GRU(32, 96, batch_first=True)
        self.o = nn.Linear(96, 12)

    def forward(self, i):
        return self.o(self.r(self.e(i))[0])


def token_loss(logits, labels):
    s = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    return s / (labels != -100).sum().clamp(min=1)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    model = Tiny()
    opt = torch.optim.AdamW(model.parameters(), lr=6e-3, weight_decay=0.0)
    dl = DataLoader(Pairs(2000, seed), 40, shuffle=True, collate_fn=Collator(whole=not fixed))
    step = 0
    for epoch in range(6):
        for ids, labels in dl:
            loss = token_loss(model(ids), labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
    ids, labels = Collator(False)([Pairs(200, seed + 99)[i] for i in range(200)])
    with torch.no_grad():
        lg = model(ids)
    keep = labels != -100
    return {"loss": loss.item(), "answer_acc": (lg.argmax(-1) == labels)[keep].float().mean().item()}
