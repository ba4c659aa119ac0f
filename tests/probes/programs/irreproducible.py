"""Trainings that differ from run to run, each with its repaired twin: ``fault(fixed=True)``."""

import os
import random
import tempfile
import threading
import time
import uuid

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CACHE = []


def fit(inputs, targets, *, steps=8, model=None, order=None):
    """Train a small net on whole batches of four, in the order given; return its last loss."""
    model = model or nn.Sequential(nn.Linear(inputs.shape[1], 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    order = list(range(len(inputs))) if order is None else order
    loss = torch.zeros(())
    for step in range(steps):
        rows = [order[(4 * step + k) % len(order)] for k in range(4)]
        loss = nn.functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"loss": loss.item()}


def data(n=32, columns=5):
    return torch.randn(n, columns), torch.randint(0, 3, (n,))


def seed_from_uuid(fixed=False):
    torch.manual_seed(3 if fixed else uuid.uuid4().int % 2**31)
    return fit(*data())


def numpy_seed_from_clock(fixed=False):
    np.random.seed(5 if fixed else time.time_ns() % 2**32)
    x, y = data()
    return fit(x, y, order=np.random.permutation(32).tolist())


def seed_from_process(fixed=False):
    random.seed(1 if fixed else os.getpid())
    x, y = data()
    order = list(range(32))
    random.shuffle(order)
    return fit(x, y, order=order)


def noise_from_the_system(fixed=False):
    x, y = data()
    amount = 7 if fixed else int.from_bytes(os.urandom(2), "big")
    return fit(x + amount / 65536, y)


def order_from_the_system(fixed=False):
    x, y = data()
    order = list(range(32))
    (random.Random(2) if fixed else random.SystemRandom()).shuffle(order)
    return fit(x, y, order=order)


def own_python_generator(fixed=False):
    x, y = data()
    own = random.Random(4) if fixed else random.Random()
    return fit(x * own.uniform(0.9, 1.1), y)


class Masked(nn.Module):
    """Dropout with a mask of its own making."""

    def __init__(self, seed):
        super().__init__()
        self.net, self.rng = nn.Linear(5, 3), np.random.default_rng(seed)

    def forward(self, x):
        return self.net(x * torch.from_numpy(self.rng.random(x.shape) > 0.5))


def dropout_with_own_generator(fixed=False):
    return fit(*data(), model=Masked(11 if fixed else None))


def resumes_from_last_checkpoint(fixed=False):
    model = nn.Linear(5, 3)
    if os.path.exists("last.pt") and not fixed:
        model.load_state_dict(torch.load("last.pt", weights_only=True))
    result = fit(*data(), model=model)
    torch.save(model.state_dict(), "last.pt")
    return result


def reads_a_cache_it_wrote(fixed=False):
    x, y = data()
    if os.path.exists("statistics.npy") and not fixed:
        mean = np.load("statistics.npy")
    else:
        mean = x.mean(0).numpy()
        np.save("statistics.npy", mean.round(2))
    return fit(x - torch.from_numpy(mean), y)


def batches_from_racing_threads(fixed=False):
    x, y = data()
    order, lock = [], threading.Lock()

    def load(part):
        time.sleep(0 if fixed else (time.perf_counter_ns() % 7) / 500 * (1 + part % 3))
        with lock:
            order.extend(range(4 * part, 4 * part + 4))

    threads = [threading.Thread(target=load, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
        if fixed:
            thread.join()
    for thread in threads:
        thread.join()
    return fit(x, y, order=order)


class Jittered(Dataset):
    """Augments in the worker process, from a generator of its own."""

    def __init__(self, x, y, seed):
        self.x, self.y, self.seed = x, y, seed

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        rng = np.random.default_rng(None if self.seed is None else self.seed + i)
        return self.x[i] + float(rng.random()), self.y[i]


def workers_with_unseeded_generators(fixed=False):
    x, y = data()
    loader = DataLoader(Jittered(x, y, 3 if fixed else None), batch_size=4, num_workers=1)
    batches = list(loader)
    return fit(torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches]))


def stops_by_the_clock(fixed=False):
    x, y = data()
    model = nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # How much time is left of a period. A limit in seconds would now and then let two runs have equally many steps.
    step, most = 0, 30 if fixed else 10 + int(time.perf_counter() * 50) % 500
    while step < most:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    return step


def evaluation_on_an_unseeded_sample(fixed=False):
    x, y = data()
    model = nn.Linear(5, 3)
    fit(x, y, model=model)
    rows = np.random.default_rng(0 if fixed else None).choice(32, 8)
    with torch.no_grad():
        return {"val_loss": nn.functional.cross_entropy(model(x[rows]), y[rows]).item()}


def files_in_order_of_their_random_names(fixed=False):
    x, y = data()
    with tempfile.TemporaryDirectory() as folder:
        for k in range(32):
            name = f"{k:02d}" if fixed else uuid.uuid4().hex
            np.save(os.path.join(folder, name), np.int64(k))
        order = [int(np.load(os.path.join(folder, name))) for name in sorted(os.listdir(folder))]
    return fit(x, y, order=order)


def remembers_in_a_module(fixed=False):
    """Differs in the second run of one process only."""
    x, y = data()
    if fixed:
        CACHE.clear()
    CACHE.append(x)
    return fit(sum(CACHE), y)
