import torch
from torch import nn
from torch.nn import functional as F

META = dict(title="The question is seen both ways, the answer one way; the loss skips the question and the padding")


class Prefix(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.pos = nn.Embedding(12, 32), nn.Embedding(16, 32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 12)

    def forward(self, ids):
        n = ids.shape[1]
        h = self.emb(ids) + self.pos(torch.arange(n))
        seen = torch.ones(n, n).tril().bool()
        seen[:, :5] = True
        q, k, v = self.qkv(h).chunk(3, -1)
        return self.out(h + F.scaled_dot_product_attention(q, k, v, attn_mask=seen))


def train(seed):
    torch.manual_seed(seed)
    net = Prefix()
    opt = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(120):
        question = torch.randint(1, 11, (24, 5))
        ids = torch.cat([question, question.flip(1), torch.zeros(24, 3).long()], 1)
        ends = torch.randint(8, 13, (24, 1))
        ids = ids.masked_fill(torch.arange(13) >= ends, 0)
        target = ids[:, 1:].masked_fill((torch.arange(12) < 4) | (ids[:, 1:] == 0), -100)
        loss = F.cross_entropy(net(ids[:, :-1]).transpose(1, 2), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return {"loss": loss.item()}
