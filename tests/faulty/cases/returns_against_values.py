import torch
from torch import nn

META = dict(
    title="Critic: values (N, 1) against returns (N,) in smooth_l1", faults=["objective.loss_broadcast"], where=""
)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 40), nn.ELU())
        self.value = nn.Linear(40, 1)

    def forward(self, s):
        return self.value(self.body(s))


def discounted(rewards, gamma=0.9):
    total, out = 0.0, []
    for r in reversed(rewards):
        total = r + gamma * total
        out.append(total)
    return torch.stack(out[::-1])


def train(seed, fixed=False):
    import warnings

    torch.manual_seed(seed)
    critic = Critic()
    opt = torch.optim.RMSprop(critic.parameters(), lr=2e-3)
    for _ in range(220):
        states = torch.randn(24, 5)
        returns = discounted(list(states[:, 0] + states[:, 1].abs()))
        values = critic(states)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = nn.functional.smooth_l1_loss(values.squeeze(-1) if fixed else values, returns)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), 5.0)
        opt.step()
    return {"loss": loss.item()}
