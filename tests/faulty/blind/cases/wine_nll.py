import torch
from sklearn.datasets import load_wine
from torch import nn
import torch.nn.functional as F

META = dict(
    faults=["objective.softmax_axis"],
    title="log_softmax along the samples before nll_loss",
    words=["softmax over the wrong axis", "log_softmax over the batch dimension", "dim=0 instead of dim=1", "softmax mixes the batch"],
    where="",
    shows="loss stays near log(batch size), rows do not sum to one, single prediction meaningless",
)


class Model(nn.Module):
    axis = 0

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(13, 32), nn.Linear(32, 3)

    def forward(self, x):
        return F.log_softmax(self.b(torch.relu(self.a(x))), dim=self.axis)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    X, Y = load_wine(return_X_y=True)
    X, Y = torch.tensor(X).float(), torch.tensor(Y)
    X = (X - X.mean(0)) / X.std(0)
    p = torch.randperm(len(Y))
    X, Y = X[p], Y[p]
    model = Model()
    model.axis = 1 if fixed else 0
    opt = torch.optim.Adam(model.parameters(), lr=1e-2)
    for it in range(150):
        i = torch.randint(0, 130, (32,))
        loss = F.nll_loss(model(X[i]), Y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    with torch.no_grad():
        one = torch.cat([model(X[k:k + 1]) for k in range(130, 178)])
        acc = (one.argmax(1) == Y[130:]).float().mean().item()
    return {"loss": loss.item(), "acc_one_by_one": acc}
