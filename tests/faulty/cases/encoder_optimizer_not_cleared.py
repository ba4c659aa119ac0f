import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="Two optimizers, only the decoder's is cleared",
    faults=["gradients.stale_gradients"],
    where="optimizer 0",
    style="bare loop, autoencoder, two learning rates",
)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    mix = torch.randn(3, 20)
    encoder = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 3))
    decoder = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 20))
    enc_opt = torch.optim.SGD(encoder.parameters(), lr=0.05)
    dec_opt = torch.optim.SGD(decoder.parameters(), lr=0.1)
    for _ in range(250):
        x = torch.randn(48, 3) @ mix
        loss = F.mse_loss(decoder(encoder(x)), x)
        dec_opt.zero_grad()
        if fixed:
            enc_opt.zero_grad()
        loss.backward()
        enc_opt.step()
        dec_opt.step()
    return {"loss": loss.item()}
