"""Trainings that are the same each time although they do what irreproducible ones do: read clocks, write files, make sets."""

import functools
import os
import random
import tempfile
import time
import uuid

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

IMPORTED = np.random.default_rng(0)
STARTED = time.time()
MODEL = nn.Linear(5, 3)
NAMES = {"loss", "accuracy"}


def fit(model, batches):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loss = torch.zeros(())
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def batches(n=6):
    return [(torch.randn(4, 5), torch.randint(0, 3, (4,))) for _ in range(n)]


def prints_and_returns_times():
    start = time.perf_counter()
    loss = fit(nn.Linear(5, 3), batches())
    print(f"{time.strftime('%H:%M:%S')} loss {loss} after {time.perf_counter() - start} s, {time.time() - STARTED} since import")
    return {"loss": loss, "seconds": time.perf_counter() - start, "when": time.time()}


def returns_a_pair_with_its_duration():
    start = time.time()
    return fit(nn.Linear(5, 3), batches()), time.time() - start


def writes_files_of_its_own():
    model = nn.Linear(5, 3)
    with tempfile.TemporaryDirectory() as folder:
        for k, batch in enumerate(batches()):
            fit(model, [batch])
            torch.save(model.state_dict(), os.path.join(folder, f"{k}.pt"))
        model.load_state_dict(torch.load(os.path.join(folder, "5.pt"), weights_only=True))
    with open("log.txt", "w") as log:
        log.write(str(time.time()))
    return model


def names_its_run_at_random():
    name = f"run-{uuid.uuid4()}"
    return {"name": name, "loss": fit(nn.Linear(5, 3), batches())}


def draws_from_a_generator_made_at_import():
    x = torch.from_numpy(IMPORTED.random((4, 5), dtype=np.float32))
    return fit(nn.Linear(5, 3), [(x, torch.tensor([0, 1, 2, 0]))])


def trains_a_model_made_at_import():
    return fit(MODEL, batches())


def shuffles_with_workers():
    x, y = torch.randn(24, 5), torch.randint(0, 3, (24,))
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True, num_workers=1)
    return fit(nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)), loader)


def uses_a_set_whose_order_stays_inside():
    seen = {k % 7 for k in range(100)}
    x, y = batches(1)[0]
    loss = fit(nn.Linear(5, 3), [(x + len(seen), y)])
    return {name: loss for name in sorted(NAMES)}


@functools.lru_cache
def table(n):
    return torch.arange(float(n)).reshape(4, -1)


def caches_what_does_not_change():
    return fit(nn.Linear(5, 3), [(table(20), torch.tensor([0, 1, 2, 0]))])


def draws_everything_from_the_seeded_generators():
    x = torch.randn(4, 5) * random.random() + float(np.random.rand())
    return fit(nn.Linear(5, 3), [(x, torch.tensor([0, 1, 2, 0]))])


def trains_no_network():
    x = np.random.rand(50)
    return {"mean": float(x.mean())}
