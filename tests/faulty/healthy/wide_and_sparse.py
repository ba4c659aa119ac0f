import torch
import torch.nn.functional as F
from torch import nn

META = dict(title="A sparse code: nearly all of 512 ReLU units are zero for every sample of a batch")


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.code = nn.Linear(16, 512)
        self.back = nn.Linear(512, 16)
        nn.init.constant_(self.code.bias, -0.5)

    def forward(self, x):
        code = F.relu(self.code(x))
        return self.back(code), code


def train(seed):
    torch.manual_seed(seed)
    data = torch.randn(1000, 4) @ torch.randn(4, 16)
    model = Sparse()
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(250):
        x = data[torch.randint(0, 1000, (32,))]
        out, code = model(x)
        loss = F.mse_loss(out, x) + 0.02 * code.mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
