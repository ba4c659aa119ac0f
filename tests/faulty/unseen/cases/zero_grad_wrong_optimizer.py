import torch
import torch.nn as nn

META = dict(
    title="Two optimizers: the encoder's is cleared twice, the decoder's never",
    source="copy-and-paste slip in loops with several optimizers",
    family="gradients",
    faults=["gradients.stale_gradients"],
    where="",
    words=["zero_grad on the wrong optimizer", "missing zero_grad", "stale gradients never cleared", "stale gradients", "gradients accumulate across iterations"],
    location="opt_enc.zero_grad() written twice instead of opt_dec.zero_grad(); decoder gradients accumulate",
    symptom="decoder gradient norm keeps growing, reconstruction loss oscillates / diverges",
)


def make(i, h, o):
    return nn.Sequential(nn.Linear(i, h), nn.ReLU(), nn.Linear(h, o))


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    basis = torch.randn(5, 20)
    enc, dec = make(20, 32, 5), make(5, 32, 20)
    opt_enc = torch.optim.SGD(enc.parameters(), lr=0.05)
    opt_dec = torch.optim.SGD(dec.parameters(), lr=0.05)
    losses = []
    for it in range(400):
        x = torch.randn(64, 5) @ basis / 2
        opt_enc.zero_grad()
        if fixed:
            opt_dec.zero_grad()
        else:
            opt_enc.zero_grad()
        loss = nn.functional.mse_loss(dec(enc(x)), x)
        loss.backward()
        opt_enc.step()
        opt_dec.step()
        losses.append(loss.item())
    return {"first": losses[0], "last": sum(losses[-20:]) / 20}


def separates(buggy, fixed):
    return fixed["last"] < 0.4 * fixed["first"] and not buggy["last"] < 2 * fixed["last"]
