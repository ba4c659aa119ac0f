import torch
from sklearn.datasets import load_digits
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["activations.collapsed_batch"],
    title="Self-supervised pairs pulled together with nothing that pushes apart",
    words=["representation collapse", "constant outputs", "embeddings collapse to one point", "no negatives in the contrastive loss"],
    where="",
    shows="loss goes to zero, the embedding of all images is the same vector",
)


def augment(x):
    return x + 0.15 * torch.randn_like(x)


def objective(a, b, negatives):
    if negatives:
        s = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.1
        return F.cross_entropy(s, torch.arange(len(a)))
    return (a - b).square().mean()


def train(seed, fixed=False):
    torch.manual_seed(seed)
    d = load_digits()
    x, y = torch.tensor(d.data / 16).float(), torch.tensor(d.target)
    enc = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
    opt = torch.optim.AdamW(enc.parameters(), lr=3e-3, weight_decay=0.02)
    h = []
    for it in range(350):
        b = x[torch.randint(0, len(x), (64,))]
        loss = objective(enc(augment(b)), enc(augment(b)), fixed)
        opt.zero_grad()
        loss.backward()
        opt.step()
        h.append(loss.item())
    with torch.no_grad():
        e = enc(x)
        probe = torch.linalg.lstsq(torch.cat([e[:1400], torch.ones(1400, 1)], 1), F.one_hot(y[:1400]).float()).solution
        acc = ((torch.cat([e[1400:], torch.ones(397, 1)], 1) @ probe).argmax(1) == y[1400:]).float().mean().item()
    return {"first": h[0], "last": h[-1], "embedding_std": e.std(0).mean().item(), "probe_acc": acc}
