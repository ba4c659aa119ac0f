import torch
import torch.nn as nn

META = dict(
    title="Word model on nn.TransformerEncoder, time first, whose mask is built and never passed",
    faults=["model.causal_leak"],
    where="transformer_encoder",
)


class TransformerModel(nn.Module):
    def __init__(self, vocabulary, width, pass_mask):
        super().__init__()
        self.encoder = nn.Embedding(vocabulary, width)
        self.pos = nn.Parameter(torch.randn(40, 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1)
        self.transformer_encoder = nn.TransformerEncoder(layer, 2)
        self.decoder = nn.Linear(width, vocabulary)
        self.pass_mask = pass_mask

    def forward(self, src):
        mask = nn.Transformer.generate_square_subsequent_mask(len(src))
        x = self.encoder(src) + self.pos[: len(src)]
        x = self.transformer_encoder(x, mask) if self.pass_mask else self.transformer_encoder(x)
        return self.decoder(x)


def train(seed, fixed=False):
    torch.manual_seed(seed)
    length, columns = 600, 10
    words = torch.randint(0, 15, (length * columns,))
    words[3::3] = (words[2:-1:3] + words[1:-2:3]) % 15
    data = words.view(columns, -1).t().contiguous()
    model = TransformerModel(15, 32, pass_mask=fixed)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    model.train()
    for epoch in range(3):
        for i in range(0, len(data) - 1, 20):
            n = min(20, len(data) - 1 - i)
            source, target = data[i : i + n], data[i + 1 : i + 1 + n].reshape(-1)
            loss = criterion(model(source).view(-1, 15), target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    return {"loss": loss.item()}
