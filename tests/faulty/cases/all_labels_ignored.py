import torch
from torch import nn

META = dict(
    title="A batch whose labels are all ignore_index: mean over nothing",
    faults=["gradients.nonfinite", "objective.ignored_labels"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    m = nn.Sequential(nn.Embedding(12, 16), nn.Linear(16, 12))
    opt = torch.optim.SGD(m.parameters(), lr=0.3)
    for k in range(200):
        i = torch.randint(0, 12, (4, 6))
        t = torch.where(torch.rand(4, 6) < (0.9 if not fixed else 0.5), torch.full_like(i, -100), (i + 1) % 12)
        if fixed:
            t[0, 0] = (i[0, 0] + 1) % 12
        l = nn.functional.cross_entropy(m(i).flatten(0, 1), t.flatten())
        opt.zero_grad()
        l.backward()
        opt.step()
    return {"loss": l.item()}
