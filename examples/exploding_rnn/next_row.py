"""Draw the next row of a handwritten digit from the rows above it: a recurrent net on 1,797 real digits."""

import torch
from sklearn.datasets import load_digits
from torch import nn


class NextRow(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = nn.RNN(input_size=8, hidden_size=hidden, batch_first=True)
        self.head = nn.Linear(hidden, 8)

    def forward(self, rows):
        states, _ = self.rnn(rows)
        return self.head(states)


def train(steps=200, warmup=20, seed=0):
    torch.manual_seed(seed)
    digits = torch.tensor(load_digits().images, dtype=torch.float32)
    model = NextRow()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / warmup)
    for step in range(steps):
        batch = digits[torch.randint(len(digits), (32,))]
        loss = nn.functional.mse_loss(model(batch[:, :-1]), batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 20 == 0:
            print(f"step {step:3d}  loss {loss.item():.4g}")
    return loss.item()


if __name__ == "__main__":
    train()
