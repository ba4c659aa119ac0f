import torch
from torch import nn

META = dict(
    title="Policy gradient: log-probabilities (N, 1) times advantages (N,)",
    faults=["objective.loss_broadcast"],
    where="",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    pi = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3))
    opt = torch.optim.Adam(pi.parameters(), 4e-3)
    for _ in range(240):
        obs = torch.randn(30, 4)
        logp = pi(obs).log_softmax(-1)
        act = torch.multinomial(logp.detach().exp(), 1)
        adv = (act[:, 0] == obs[:, :3].argmax(1)).float() - 0.33
        chosen = logp.gather(1, act)
        if fixed:
            chosen = chosen[:, 0]
        loss = -(chosen * adv).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
