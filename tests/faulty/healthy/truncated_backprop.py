import torch
from torch import nn

META = dict(title="Truncated backpropagation: the hidden state is detached between chunks, gradients clipped in each", looks_like="detach, clipping always active")


def train(seed):
    torch.manual_seed(seed)
    rnn, out = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)
    params = list(rnn.parameters()) + list(out.parameters())
    opt = torch.optim.Adam(params, lr=5e-3)
    t = torch.arange(2000) * 0.1
    wave = (torch.sin(t) + 0.5 * torch.sin(2.3 * t) + 0.02 * torch.randn(2000)).view(4, 500, 1)
    for _ in range(8):
        state = None
        for i in range(0, 480, 24):
            h, state = rnn(wave[:, i : i + 24], state)
            state = tuple(s.detach() for s in state)
            loss = nn.functional.mse_loss(out(h), wave[:, i + 1 : i + 25])
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(params, 0.05)
            opt.step()
    return {"loss": loss.item()}
