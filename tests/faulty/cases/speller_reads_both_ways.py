import torch
from torch import nn

META = dict(title="Character model on a bidirectional LSTM", faults=["model.causal_leak"], where="lstm")


def train(seed, fixed=False):
    torch.manual_seed(seed)
    chars = torch.randint(0, 9, (64, 25)).cumsum(1) % 11
    net = nn.ModuleDict(
        {
            "emb": nn.Embedding(11, 16),
            "lstm": nn.LSTM(16, 32, batch_first=True, bidirectional=not fixed),
            "fc": nn.Linear(32 if fixed else 64, 11),
        }
    )

    class Speller(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = net

        def forward(self, ids, state=None):
            h, state = self.parts["lstm"](self.parts["emb"](ids), state)
            return self.parts["fc"](h), state

    speller = Speller()
    opt = torch.optim.RMSprop(speller.parameters(), lr=2e-3)
    lossf = nn.CrossEntropyLoss()
    total = 0.0
    for it in range(100):
        rows = torch.randint(0, 64, (16,))
        logits, _ = speller(chars[rows, :-1])
        loss = lossf(logits.permute(0, 2, 1), chars[rows, 1:])
        loss.backward()
        opt.step()
        opt.zero_grad()
        total += loss.item()
    return {"loss": total / 100}
