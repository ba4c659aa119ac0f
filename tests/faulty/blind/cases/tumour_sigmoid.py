import torch
import torch.nn.functional as F
from sklearn.datasets import make_classification

META = dict(
    faults=["objective.double_softmax"],
    title="Binary classifier with a squashed output under a with-logits loss",
    words=["sigmoid applied twice", "sigmoid before BCE with logits", "double sigmoid"],
    where="",
    shows="loss floors near 0.5, all predictions over the 0.5 cut",
)


def train(seed, fixed=False):
    g = torch.Generator().manual_seed(seed)
    X, y = make_classification(1200, 20, n_informative=8, class_sep=1.6, flip_y=0.0, random_state=seed)
    X, y = torch.tensor(X).float(), torch.tensor(y).float()
    xt, yt, xv, yv = X[:900], y[:900], X[900:], y[900:]

    def p(*shape):
        return (torch.randn(*shape, generator=g) / shape[0] ** 0.5).requires_grad_()

    params = {"w1": p(20, 32), "b1": torch.zeros(32, requires_grad=True), "w2": p(32, 1), "b2": torch.zeros(1, requires_grad=True)}

    def forward(x):
        h = F.silu(x @ params["w1"] + params["b1"])
        z = (h @ params["w2"] + params["b2"]).squeeze(1)
        return z if fixed else torch.sigmoid(z)

    opt = torch.optim.Adam(params.values(), lr=5e-3)
    for step in range(300):
        i = torch.randint(0, 900, (64,), generator=g)
        loss = F.binary_cross_entropy_with_logits(forward(xt[i]), yt[i])
        opt.zero_grad(); loss.backward(); opt.step()
    with torch.no_grad():
        out = forward(xv)
        acc = ((torch.sigmoid(out) > 0.5) == yv.bool()).float().mean()
        vl = F.binary_cross_entropy_with_logits(out, yv)
    return {"train_loss": loss.item(), "val_loss": vl.item(), "val_acc": acc.item()}
