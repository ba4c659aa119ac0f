"""Which diabetes patients get worse within a year? 442 real patients, ten measurements each."""

import torch
from sklearn.datasets import load_diabetes
from torch import nn


def load():
    patients = load_diabetes(as_frame=True, scaled=False).frame
    patients = patients.rename(columns={"target": "progression"})
    patients["worse"] = patients["progression"] > 140
    return patients


def split(patients, seed=0):
    shuffled = patients.sample(frac=1.0, random_state=seed)
    cut = int(len(shuffled) * 0.75)
    return shuffled.iloc[:cut], shuffled.iloc[cut:]


def tensors(patients, mean, spread):
    features = (patients.drop(columns="worse") - mean) / spread
    return (
        torch.tensor(features.to_numpy(), dtype=torch.float32),
        torch.tensor(patients["worse"].to_numpy(), dtype=torch.float32),
    )


def train(epochs=60, seed=0):
    torch.manual_seed(seed)
    train_rows, test_rows = split(load())
    numbers = train_rows.drop(columns="worse")
    mean, spread = numbers.mean(), numbers.std()
    x, y = tensors(train_rows, mean, spread)
    model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            loss = nn.functional.binary_cross_entropy_with_logits(model(x[rows]).squeeze(1), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    x, y = tensors(test_rows, mean, spread)
    with torch.no_grad():
        return ((model(x).squeeze(1) > 0) == y.bool()).float().mean().item()


if __name__ == "__main__":
    print(f"test accuracy {train():.3f}")
