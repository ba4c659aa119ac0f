import torch
import torch.nn as nn

META = dict(
    title="Autoencoder bottleneck passed on through .data",
    source="legacy pre-0.4 code style; .data silently cuts the graph",
    family="wiring",
    faults=["updates.frozen_parameters"],
    where="",
    words=["detached graph", ".data cuts backpropagation", "encoder receives no gradient", "frozen encoder", "parameters without gradient", "parameters never updated"],
    location="AutoEncoder.forward: code = self.encoder(x).data; encoder parameters have grad None",
    symptom="only the decoder learns, reconstruction error stays high",
)


class AutoEncoder(nn.Module):
    def __init__(self, cut):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(30, 24), nn.Tanh(), nn.Linear(24, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 30))
        self.cut = cut

    def forward(self, x):
        code = self.encoder(x)
        if self.cut:
            code = code.data
        return self.decoder(code)


class Recorder:
    def __init__(self):
        self.values = []

    def on_batch_end(self, loss):
        self.values.append(loss)


def fit(ae, opt, stream, callbacks):
    for x in stream:
        loss = torch.mean((ae(x) - x) ** 2)
        opt.zero_grad()
        loss.backward()
        opt.step()
        for c in callbacks:
            c.on_batch_end(loss.item())


def train(seed: int, fixed: bool = False) -> dict:
    torch.manual_seed(seed)
    mix = torch.randn(4, 30) / 2
    stream = (torch.randn(64, 4) @ mix for _ in range(400))
    ae = AutoEncoder(cut=not fixed)
    rec = Recorder()
    fit(ae, torch.optim.Adam(ae.parameters(), lr=4e-3), stream, [rec])
    return {"start": rec.values[0], "mse": sum(rec.values[-20:]) / 20}


def separates(buggy, fixed):
    return buggy["mse"] > 2 * fixed["mse"] and fixed["mse"] < 0.4 * fixed["start"]
