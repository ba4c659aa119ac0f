import torch
from torch import nn

META = dict(title="Pretraining as an autoencoder, then a classifier with a frozen encoder, in one program", looks_like="parameters that stop training, a jump of the loss")


def train(seed):
    torch.manual_seed(seed)
    enc, dec = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 6)), nn.Linear(6, 16)
    mix = torch.randn(6, 16)
    opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=5e-3)
    for _ in range(150):
        x = torch.randn(48, 6) @ mix * 0.2
        loss = nn.functional.mse_loss(dec(enc(x)), x)
        opt.zero_grad()
        loss.backward()
        opt.step()
    enc.eval()
    head = nn.Linear(6, 3)
    opt = torch.optim.SGD(head.parameters(), lr=0.5)
    w = torch.randn(16, 3)
    for _ in range(150):
        x = torch.randn(48, 6) @ mix * 0.2
        with torch.no_grad():
            z = enc(x)
        loss = nn.functional.cross_entropy(head(z), (x @ w).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
