import copy
import torch
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["updates.still_average"],
    title="Q-learning on a corridor whose target net is a soft copy that never changes",
    words=["target network never updated", "EMA never updates", "soft update has no effect", "target network stale"],
    where="",
    shows="target parameters stay the initial ones; values never propagate back",
)
N = 8


def soft_update(online, target, tau, in_place):
    o, t = online.state_dict(), target.state_dict()
    for k in t:
        new = (1 - tau) * t[k] + tau * o[k]
        if in_place:
            t[k].copy_(new)
        else:
            t[k] = new


def step_env(s, a):
    s2 = (s + 2 * a - 1).clamp(0, N - 1)
    done = s2 == N - 1
    return s2, done.float(), done


def train(seed, fixed=False):
    torch.manual_seed(seed)
    q = nn.Sequential(nn.Linear(N, 32), nn.ReLU(), nn.Linear(32, 2))
    qt = copy.deepcopy(q)
    qt.requires_grad_(False)
    opt = torch.optim.Adam(q.parameters(), lr=5e-3)
    eye = torch.eye(N)
    for it in range(400):
        s = torch.randint(0, N - 1, (32,))
        a = torch.randint(0, 2, (32,))
        s2, r, done = step_env(s, a)
        with torch.no_grad():
            tgt = r + 0.9 * qt(eye[s2]).max(1).values * (~done)
        loss = F.smooth_l1_loss(q(eye[s]).gather(1, a[:, None]).squeeze(1), tgt)
        opt.zero_grad()
        loss.backward()
        opt.step()
        soft_update(q, qt, 0.1, in_place=fixed)
    with torch.no_grad():
        v = q(eye[: N - 1])
        true = torch.tensor([0.9 ** (N - 2 - i) for i in range(N - 1)])
    return {"loss": loss.item(), "value_error": (v.max(1).values - true).abs().mean().item(),
            "greedy_right": (v.argmax(1) == 1).float().mean().item()}
