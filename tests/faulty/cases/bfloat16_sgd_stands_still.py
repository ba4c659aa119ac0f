import torch
import torch.nn.functional as F
from torch import nn

META = dict(
    title="bfloat16 weights under SGD: lr times gradient is below the spacing of the weights",
    faults=["precision.lost_updates"],
    where="SGD",
    style="class with functional loss",
)


class Classifier(nn.Module):
    def __init__(self, d=20, c=5):
        super().__init__()
        self.body = nn.Linear(d, 48)
        self.head = nn.Linear(48, c)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def train(seed, fixed=False):
    torch.manual_seed(seed)
    net = Classifier()
    dtype = torch.float32 if fixed else torch.bfloat16
    net.to(dtype)
    sgd = torch.optim.SGD(net.parameters(), lr=0.3 if fixed else 5e-4)
    w = torch.randn(20, 5)
    for _ in range(400):
        x = torch.randn(128, 20)
        loss = F.cross_entropy(net(x.to(dtype)).float(), (x @ w).argmax(1))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return {"loss": loss.item()}
