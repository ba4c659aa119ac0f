import torch
from torch import nn

META = dict(title="A logistic regression that begins at zero, with a signal that gains one part in six", looks_like="large relative updates, almost flat loss")


def train(seed):
    torch.manual_seed(seed)
    x = torch.randn(2000, 12)
    y = (torch.rand(2000) < torch.sigmoid(x @ torch.randn(12) * 0.4)).float()
    net = nn.Linear(12, 1)
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    opt = torch.optim.Adam(net.parameters(), lr=0.02)
    for step in range(250):
        i = torch.randint(0, 2000, (128,))
        loss = nn.functional.binary_cross_entropy_with_logits(net(x[i]).squeeze(1), y[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
