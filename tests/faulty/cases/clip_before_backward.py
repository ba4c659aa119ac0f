import torch
from torch import nn

META = dict(title="clip before backward", faults=["calls.misordered_calls"], where="clip")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    rnn = nn.RNN(3, 16, batch_first=True)
    out = nn.Linear(16, 1)
    ps = [*rnn.parameters(), *out.parameters()]
    opt = torch.optim.SGD(ps, lr=0.05)
    for _ in range(120):
        x = torch.randn(16, 10, 3)
        loss = nn.functional.mse_loss(out(rnn(x)[0][:, -1]), x[:, -1, :1])
        opt.zero_grad()
        if not fixed:
            nn.utils.clip_grad_norm_(ps, 1.0)
        loss.backward()
        if fixed:
            nn.utils.clip_grad_norm_(ps, 1.0)
        opt.step()
    return {"loss": loss.item()}
