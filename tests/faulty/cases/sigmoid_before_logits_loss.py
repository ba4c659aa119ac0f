import torch
from torch import nn

META = dict(title="Sigmoid in the net and BCEWithLogitsLoss outside", faults=["objective.double_softmax"], where="")


class Tagger(nn.Module):
    def __init__(self, probabilities):
        super().__init__()
        self.words = nn.EmbeddingBag(60, 24)
        self.head = nn.Linear(24, 5)
        self.probabilities = probabilities

    def forward(self, x):
        tags = self.head(torch.relu(self.words(x)))
        return torch.sigmoid(tags) if self.probabilities else tags


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Tagger(probabilities=not fixed)
    criterion = nn.BCEWithLogitsLoss()
    opt = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(250):
        x = torch.randint(0, 60, (32, 8))
        y = torch.stack([(x % 5 == k).any(1) for k in range(5)], 1).float()
        opt.zero_grad()
        loss = criterion(net(x), y)
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
